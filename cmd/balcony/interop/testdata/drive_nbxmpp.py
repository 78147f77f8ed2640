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
from nbxmpp.http import HTTPSession
from nbxmpp.modules.bookmarks.pep_bookmarks import BOOKMARK_OPTIONS as PEP_OPTIONS
from nbxmpp.modules.bookmarks.util import build_storage_node
from nbxmpp.modules.user_avatar import Avatar
from nbxmpp.protocol import JID, Iq, Message
from nbxmpp.structs import BookmarkData, DiscoIdentity, StanzaHandler

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
        if properties.pubsub_event is not None:
            event = properties.pubsub_event
            fact = {"from": str(properties.jid), "node": event.node, "id": event.id}
            if event.retracted:
                fact["retracted"] = True
            elif isinstance(event.data, BookmarkData):
                fact["bookmark"] = bookmark(event.data)
            elif event.data is not None:
                fact["images"] = [i.bytes for i in event.data.infos]
                fact["id"] = event.id == event.data.default
            else:
                fact["id"] = None  # the server has made it
            self.incoming.append({"saw": "event", **fact})
            return
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
        if properties.avatar_sha is not None:
            fact["avatar"] = properties.avatar_sha
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

    def online(self, *nodes):
        """Logs in and sends initial presence; it wants to be notified of those nodes."""
        assert self.login(), self.client.get_error()
        roster = self.ask("Roster", "request_roster")
        show(client=self.name, roster=[str(item.jid) for item in roster.items])
        caps = self.client.get_module("EntityCaps")
        if nodes:
            caps.set_caps([DiscoIdentity("client", "pc", "drive")], [n + "+notify" for n in nodes], "urn:example:drive")
        self.send_presence()
        self.saw()
        return self

    def send_presence(self):
        self.client.get_module("BasePresence").send(caps=(c := self.client.get_module("EntityCaps").caps) and c._asdict())

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

    def forget(self):
        """Forgets what has come, with all that the server has sent by now."""
        self.ask("Ping", "ping", JID.from_string("localhost"))
        self.incoming.clear()

    def cut(self):
        """Ends the connection without closing the stream."""
        self.client.disconnect(immediate=True)
        run_until(lambda: self.ended)

    def back(self):
        """Connects again, and tells whether the session was resumed or begun anew."""
        how = []
        for signal in ("resume-successful", "resume-failed", "connected"):
            self.client.subscribe(signal, lambda _client, signal: how.append(signal))
        self.ended = False
        self.client.connect()
        run_until(lambda: "resume-successful" in how or "connected" in how or self.ended)
        return how

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


def resumption():
    romeo, juliet = Client("romeo", "orchard").online(), Client("juliet", "balcony").online()
    for turn in ("first", "second"):
        juliet.cut()
        for n in (1, 2):
            romeo.say(JID.from_string("juliet@localhost"), f"{turn} {n}")
        romeo.saw_nothing()
        show(turn=turn, how=juliet.back(), jid=str(juliet.client.get_bound_jid()))
        juliet.saw(2)
        juliet.say(romeo.client.get_bound_jid(), f"back from the {turn}")
        romeo.saw()
        juliet.saw_nothing()
    juliet.leave()
    romeo.leave()


def upload():
    """What Gajim does: it looks for the service and asks for a slot; its HTTP is libsoup's. Before it downloads it asks for type and length."""
    romeo = Client("romeo", "orchard").online()
    services = []
    for item in romeo.ask("Discovery", "disco_items", JID.from_string("localhost")).items:
        info = romeo.ask("Discovery", "disco_info", item.jid)
        if "urn:xmpp:http:upload:0" in info.features:
            services.append((item.jid, info.httpupload_max_file_size))
    (service, most), = services
    show(service=str(service), most=most)
    http = HTTPSession()
    http.get_soup_session().set_tls_database(Gio.TlsFileDatabase.new(OPTIONS["certificates"]["localhost"]))

    def request(method, uri, content=None):
        data = []
        r = http.create_request()
        if content:
            r.set_request_body("image/png", content)
        r.send(method, uri, callback=lambda r: data.append(r.get_data()))
        run_until(lambda: data)
        headers = r.get_response_headers()
        show(method=method, status=int(r.get_status()), type=headers.get_content_type()[0], length=headers.get_content_length())
        return data[0]

    content = bytes(range(256)) * 1000
    slot = romeo.ask("HTTPUpload", "request_slot", service, "balcony & garden.png", len(content), "image/png")
    show(headers=slot.headers, https=slot.put_uri.startswith("https://localhost:"))
    request("PUT", slot.put_uri, content)
    request("HEAD", slot.get_uri)
    show(same=request("GET", slot.get_uri) == content)
    show(too_large=romeo.ask("HTTPUpload", "request_slot", service, "a", 10**12, "image/png"))
    romeo.leave()


def bookmark(b):
    return [str(b.jid), b.name, b.nick, b.autojoin]


def befriend(romeo, juliet):
    for one, other in ((romeo, juliet), (juliet, romeo)):
        one.client.get_module("BasePresence").subscribe(JID.from_string(other.name + "@localhost"))
        run_until(lambda: any(f.get("type") == "subscribe" for f in other.incoming))
        other.client.get_module("BasePresence").subscribed(JID.from_string(one.name + "@localhost"))
        run_until(lambda: any(f.get("type") == "subscribed" for f in one.incoming))
    for client in (romeo, juliet):
        client.forget()


def bookmarks():
    """What Gajim does with bookmarks: it stores them as XEP-0402 where the server converts, and as XEP-0048 elsewhere and before."""
    nodes = ("urn:xmpp:bookmarks:1",)
    juliet, chamber = Client("juliet", "balcony").online(), Client("juliet", "chamber").online(*nodes)
    romeo = Client("romeo", "orchard").online(*nodes)
    befriend(romeo, juliet)
    for client in (juliet, chamber):
        client.forget()
    info = juliet.ask("Discovery", "disco_info", JID.from_string("juliet@localhost"))
    show(conversion=["urn:xmpp:bookmarks:1#compat" in info.features, "urn:xmpp:bookmarks:1#compat-pep" in info.features])
    garden = BookmarkData(jid=JID.from_string("garden@rooms.localhost"), name="The <Garden>", nick="Jülïet", autojoin=True, password="rose")
    hall = BookmarkData(jid=JID.from_string("hall@rooms.localhost"), name="Hall")

    def listed():
        for module in ("NativeBookmarks", "PEPBookmarks", "PrivateBookmarks"):
            show(by=module, bookmarks=sorted(bookmark(b) for b in juliet.ask(module, "request_bookmarks")))

    juliet.ask("NativeBookmarks", "store_bookmarks", [garden, hall])
    chamber.saw(2)
    listed()
    # An older client changes one, and leaves out the other.
    juliet.ask("PrivateBookmarks", "store_bookmarks", [garden._replace(autojoin=False)])
    chamber.saw(2)
    listed()
    show(password=[b.password for b in juliet.ask("NativeBookmarks", "request_bookmarks")])
    juliet.ask("PubSub", "publish", "storage:bookmarks", build_storage_node([garden, hall]), "current", PEP_OPTIONS)
    chamber.saw(2)
    juliet.ask("NativeBookmarks", "retract_bookmark", hall.jid)
    chamber.saw()
    listed()
    # They are hers alone.
    for node in (*nodes, "storage:bookmarks"):
        show(contact=romeo.ask("PubSub", "request_items", node, None, "juliet@localhost"))
    for client in (romeo, chamber, juliet):
        client.saw_nothing()
    for client in (romeo, chamber, juliet):
        client.leave()


def avatars():
    """What Gajim does with avatars: for contacts, then for everybody, then none."""
    nodes = ("urn:xmpp:avatar:metadata",)
    juliet, romeo = Client("juliet", "balcony").online(), Client("romeo", "orchard").online(*nodes)
    befriend(romeo, juliet)
    tybalt = Client("tybalt", "piazza").online()

    def wears(image, public):
        avatar = Avatar()
        avatar.add_image_source(image, "image/png", 64, 64)
        result = juliet.ask("UserAvatar", "set_avatar", avatar, public)
        show(published=result.node)
        romeo.saw()
        sha = avatar.metadata.default
        got = romeo.ask("UserAvatar", "request_avatar_data", sha, "juliet@localhost")
        show(contact=got.data == image)
        got = tybalt.ask("UserAvatar", "request_avatar_data", sha, "juliet@localhost")
        show(stranger=got if isinstance(got, str) else got.data == image)
        juliet.send_presence()
        run_until(lambda: romeo.incoming)
        fact = romeo.incoming.popleft()
        show(presence=fact["from"], avatar=fact.get("avatar") == sha)
        card = romeo.ask("VCardTemp", "request_vcard", JID.from_string("juliet@localhost"))
        show(card=card.get_avatar() == (image, sha) if not isinstance(card, str) else card)

    wears(bytes(range(256)) * 40, False)
    wears(bytes(range(255, -1, -1)) * 40, True)  # precondition-not-met, configured, and published again
    show(removed=not isinstance(juliet.ask("UserAvatar", "set_avatar", None), str))
    romeo.saw()
    show(metadata=romeo.ask("UserAvatar", "request_avatar_metadata", "juliet@localhost"))
    juliet.send_presence()
    romeo.saw()
    for client in (romeo, tybalt):
        client.leave()
    juliet.leave()


logging.basicConfig(level=logging.DEBUG, format="%(asctime)s %(levelname)s %(message)s")  # shown when the test fails
globals()[sys.argv[1]]()
