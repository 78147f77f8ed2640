"""Drives nbxmpp, the library of Gajim, for nbxmpp_test.go: drive_nbxmpp.py SCENARIO OPTIONS

Prints what happens, one JSON object a line, in the order in which the scenario looks at it.
"""

import collections
import json
import logging
import sys

import gi

gi.require_version("Soup", "3.0")

from gi.repository import Gio, GLib
from nbxmpp.client import Client as NBXMPPClient
from nbxmpp.const import ConnectionProtocol, ConnectionType
from nbxmpp.errors import StanzaError
from nbxmpp.protocol import JID, Iq, Message
from nbxmpp.structs import StanzaHandler

OPTIONS = json.loads(sys.argv[2])


def show(**fact):
    print(json.dumps(fact, ensure_ascii=False), flush=True)


def run_until(happened):
    """Runs the main loop until something has happened.."""
    while not happened():
        GLib.MainContext.default().iteration(True)


class Client:
    """Keeps what the server sends on its own in the order in which it came."""

    def __init__(self, name, resource, password=OPTIONS["password"], mechanism=None, direct_tls=False):
        self.name = name
        self.incoming = collections.deque()
        self.connected = self.ended = False
        self.client = c = NBXMPPClient(name)
        c.set_domain("localhost")
        c.set_username(name)
        c.set_resource(resource)
        c.set_password(password)
        port, kind = ("direct_tls", ConnectionType.DIRECT_TLS) if direct_tls else ("starttls", ConnectionType.START_TLS)
        c.set_custom_host(f"{OPTIONS['host']}:{OPTIONS[port]}", ConnectionProtocol.TCP, kind)
        c.set_accepted_certificates([Gio.TlsCertificate.new_from_file(OPTIONS["certificates"]["localhost"])])
        if mechanism:
            c.set_mechs({mechanism})
        c.subscribe("connected", self.on_connected)
        for signal in ("disconnected", "connection-failed"):
            c.subscribe(signal, self.on_ended)
        for stanza in ("message", "presence", "iq"):
            c.register_handler(StanzaHandler(name=stanza, callback=getattr(self, "on_" + stanza), priority=50))

    def on_connected(self, *_):
        self.connected = True

    def on_ended(self, *_):
        self.ended = True

    def on_message(self, _client, stanza, properties):
        fact = {"from": str(properties.jid), "type": properties.type.value}
        if properties.error is not None:
            fact["condition"] = properties.error.condition
        else:
            fact["body"] = properties.body
        if properties.has_server_delay:
            fact["delayed"] = True
        self.incoming.append({"saw": "message", **fact})

    def on_presence(self, _client, stanza, properties):
        fact = {"from": str(properties.jid), "type": properties.type.value}
        if properties.status:
            fact["status"] = properties.status
        self.incoming.append({"saw": "presence", **fact})

    def on_iq(self, _client, stanza, properties):
        if properties.roster is not None:
            item = properties.roster.item
            fact = {"jid": str(item.jid), "name": item.name, "subscription": item.subscription, "groups": sorted(item.groups)}
            self.incoming.append({"saw": "push", **fact, **({"ask": item.ask} if item.ask else {})})
        elif properties.blocking is not None:
            push = properties.blocking
            self.incoming.append({"saw": "block push", "block": [str(j) for j in push.block], "unblock": [str(j) for j in push.unblock]})

    def login(self):
        """Connects and waits for a bound session, or for the end of the connection."""
        self.client.connect()
        run_until(lambda: self.connected or self.ended)
        return self.connected

    def online(self):
        assert self.login(), self.client.get_error()
        roster = self.ask("Roster", "request_roster")
        show(client=self.name, roster=[str(item.jid) for item in roster.items])
        self.client.get_module("BasePresence").send()
        self.saw()
        return self

    def ask(self, module, method, *args):
        """Calls a module's request and gives its result, or the condition of its error."""
        results = []

        def finished(task):  # a name of its own, for nbxmpp keeps a weak reference
            try:
                results.append(task.finish())
            except StanzaError as err:
                results.append(err.condition)

        getattr(self.client.get_module(module), method)(*args, callback=finished)
        run_until(lambda: results)
        return results[0]

    def say(self, to, body):
        self.client.send_stanza(Message(to=to, body=body, typ="chat"))

    def saw(self, count=1):
        for _ in range(count):
            run_until(lambda: self.incoming)
            show(client=self.name, **self.incoming.popleft())

    def saw_nothing(self):
        """Proves with a ping that nothing else came."""
        self.ask("Ping", "ping", JID.from_string("localhost"))
        while self.incoming:
            show(client=self.name, instead_of="nothing", **self.incoming.popleft())

    def leave(self):
        self.client.disconnect()
        run_until(lambda: self.ended)


def login():
    for mechanism in (None, "SCRAM-SHA-512", "SCRAM-SHA-256", "SCRAM-SHA-1", "PLAIN"):
        for direct_tls in (False, True):
            c = Client("romeo", "orchard", mechanism=mechanism, direct_tls=direct_tls)
            show(login=c.login(), jid=str(c.client.get_bound_jid()), mechanism=mechanism or "default", tls=c.client.tls_version.value_nick)
            c.leave()
    c = Client("romeo", "orchard", password="wrong")
    show(login=c.login(), error=c.client.get_error()[1])


def chat():
    romeo, juliet = Client("romeo", "orchard").online(), Client("juliet", "balcony").online()
    romeo.ask("Roster", "set_item", JID.from_string("juliet@localhost"), "Jülïet", ["Capulets", "Loves"])
    romeo.saw()
    for one, other in ((romeo, juliet), (juliet, romeo)):
        one.client.get_module("BasePresence").subscribe(JID.from_string(other.name + "@localhost"))
        one.saw()
        other.saw()
        other.client.get_module("BasePresence").subscribed(JID.from_string(one.name + "@localhost"))
        other.saw()
        one.saw(3)
    romeo.say(JID.from_string("juliet@localhost"), "Art thou not <Romeo> & a Montague? 🌹")
    juliet.saw()
    juliet.say(romeo.client.get_bound_jid(), "Neither, fair saint")
    romeo.saw()
    show(version=romeo.ask("SoftwareVersion", "request_software_version", JID.from_string("localhost")).name)
    info = romeo.ask("Discovery", "disco_info", JID.from_string("localhost"))
    show(identities=[[i.category, i.type] for i in info.identities], blocking="urn:xmpp:blocking" in info.features)

    show(list=[str(j) for j in juliet.ask("Blocking", "request_blocking_list")])
    juliet.ask("Blocking", "block", [JID.from_string("romeo@localhost")])
    juliet.saw()
    romeo.saw()
    romeo.say(JID.from_string("juliet@localhost"), "hear me")
    romeo.saw()
    juliet.saw_nothing()
    show(list=[str(j) for j in juliet.ask("Blocking", "request_blocking_list")])
    juliet.ask("Blocking", "unblock", [JID.from_string("romeo@localhost")])
    juliet.saw()
    romeo.saw()

    juliet.leave()
    romeo.saw()
    for body in ("one", "two", "three"):
        romeo.say(JID.from_string("juliet@localhost"), body)
    romeo.saw_nothing()
    juliet = Client("juliet", "chamber").online()
    juliet.saw(4)
    romeo.saw()
    juliet.leave()
    romeo.leave()



logging.basicConfig(level=logging.DEBUG, format="%(asctime)s %(levelname)s %(message)s")  # shown when the test fails
globals()[sys.argv[1]]()
