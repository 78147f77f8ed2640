"""Drives slixmpp for slixmpp_test.go: drive_slixmpp.py SCENARIO OPTIONS

Prints what happens, one JSON object a line, in the order in which the scenario looks at it.
"""

import asyncio
import json
import logging
import ssl
import sys
from datetime import datetime, timezone

import slixmpp
from slixmpp.exceptions import IqError
from slixmpp.plugins import xep_0082

OPTIONS = json.loads(sys.argv[2])
ADMIN = "http://jabber.org/protocol/admin#"
FEATURES_OF_AN_ACCOUNT = {
    "http://jabber.org/protocol/disco#info", "http://jabber.org/protocol/disco#items", "jabber:iq:last", "jabber:iq:private",
    "urn:xmpp:ping", "vcard-temp",
}
FEATURES = FEATURES_OF_AN_ACCOUNT | {
    "http://jabber.org/protocol/caps", "http://jabber.org/protocol/commands", "jabber:iq:register", "jabber:iq:roster",
    "jabber:iq:version", "msgoffline", "urn:xmpp:blocking", "urn:xmpp:time",
}


def show(**fact):
    print(json.dumps(fact, ensure_ascii=False), flush=True)


class Client(slixmpp.ClientXMPP):
    """Keeps what the server sends on its own in the order in which it came."""

    def __init__(self, jid, *plugins, password=OPTIONS["password"], mechanism=None, tls12=False):
        super().__init__(jid, password, sasl_mech=mechanism)
        self.name = self.requested_jid.user
        self.incoming = asyncio.Queue()
        self.ca_certs = OPTIONS["certificates"][self.requested_jid.domain]
        if tls12:
            self.ssl_context.maximum_version = ssl.TLSVersion.TLSv1_2
        self.auto_authorize = None
        self.auto_subscribe = False
        for plugin in ("xep_0030", "xep_0199", "xep_0203", *plugins):
            self.register_plugin(plugin)
        for event in ("message", "message_error", "presence", "blocked", "unblocked", "stream_error", "failed_all_auth"):
            self.add_event_handler(event, lambda data, event=event: self.came(event, data))
        self.add_event_handler("roster_update", self.roster_push)
        self.add_filter("in", self.before_slixmpp)
        self.add_event_handler("connection_failed", lambda err: self.came("connection_failed", err))

    def came(self, event, data):
        if event == "message" and data["type"] == "error":
            return  # slixmpp has an event of its own for that, and this one too
        if event == "presence" and data["type"] == "unavailable" and data["from"] == self.boundjid:
            return  # whether a session that the server ends is told of its own end depends on who is faster
        self.incoming.put_nowait((event, data))

    def before_slixmpp(self, stanza):
        """Notes what slixmpp's own handling of a roster would hide."""
        if isinstance(stanza, slixmpp.Iq):
            stanza.empty = len(stanza.xml) == 0
        return stanza

    def roster_push(self, iq):
        if iq["type"] == "set":
            self.came("push", iq)

    async def start(self, direct_tls=False):
        """Connects, and waits for a bound session or the end of the connection."""
        ended = self.disconnected
        self.incoming = asyncio.Queue()
        address = (OPTIONS["host"], OPTIONS["direct_tls" if direct_tls else "starttls"])
        self.connect(address=address, use_ssl=direct_tls, force_starttls=not direct_tls)
        started = asyncio.ensure_future(self.wait_until("session_start", None))
        await asyncio.wait({started, ended}, return_when=asyncio.FIRST_COMPLETED)
        if not started.done():
            started.cancel()
            return False
        self.tls = self.socket.version()
        self.mechanism = self["feature_mechanisms"].mech.name
        return True

    async def online(self, **presence):
        """Logs in, asks for the roster and sends initial presence; shows the roster."""
        assert await self.start(), "no session"
        self.show_roster(await self.get_roster())
        await self.available(**presence)
        return self

    async def start_quietly(self):
        """Logs in and asks for the roster, to be told of its changes, without presence."""
        assert await self.start(), "no session"
        await self.get_roster()
        return self

    async def available(self, **presence):
        self.send_presence(**presence)
        event, echo = await self.incoming.get()
        assert event == "presence" and echo["from"] == self.boundjid, (event, echo)

    def show_roster(self, answer):
        show(client=self.name, roster="not changed" if answer.empty else items(answer["roster"]))  # RFC 6121 §2.6.3

    async def saw(self, count=1):
        """Shows what came next."""
        for _ in range(count):
            event, data = await self.incoming.get()
            show(client=self.name, saw=event, **describe(event, data))

    async def saw_nothing(self):
        """Proves with a ping that nothing else came."""
        await self["xep_0199"].ping(self.boundjid.domain)
        while not self.incoming.empty():
            event, data = self.incoming.get_nowait()
            show(client=self.name, saw=event, instead_of="nothing", **describe(event, data))

    async def leave(self):
        await self.disconnect()

    async def cut(self):
        """Ends the connection without closing the stream."""
        ended = self.disconnected
        self.abort()
        await ended


def items(roster):
    return [
        {"jid": str(jid), "name": item["name"], "subscription": item["subscription"], "groups": sorted(item["groups"]), **({"ask": item["ask"]} if item["ask"] else {})}
        for jid, item in sorted(roster["items"].items())
    ]


def describe(event, stanza):
    if event == "push":
        return items(stanza["roster"])[0]
    if event in ("blocked", "unblocked"):
        return {"jids": sorted(str(j) for j in stanza[event[:-2]]["items"])}
    if event == "stream_error":
        return {"condition": stanza["condition"]}
    if event in ("message", "message_error", "presence"):
        fact = {"from": str(stanza["from"]), "type": stanza["type"]}
        if event == "message_error":
            fact["condition"] = stanza["error"]["condition"]
        elif event == "message":
            fact["body"] = stanza["body"]
        elif stanza["status"]:
            fact["status"] = stanza["status"]
        if stanza.xml.find("{urn:xmpp:delay}delay") is not None:
            age = datetime.now(timezone.utc) - stanza["delay"]["stamp"].astimezone(timezone.utc)
            fact["delayed by"] = str(stanza["delay"]["from"])
            fact["stamp"] = "right" if -1 <= age.total_seconds() < 60 else str(stanza["delay"]["stamp"])
        return fact
    return {"data": str(stanza)}


async def answer(request):
    """Waits for the answer of an IQ and gives the condition of an error."""
    try:
        await request
        return "done"
    except IqError as err:
        return err.condition


async def login():
    for direct_tls in (False, True):
        for tls12 in (False, True):
            c = Client("romeo@localhost/orchard", tls12=tls12)
            await c.start(direct_tls)
            show(login=str(c.boundjid), mechanism=c.mechanism, tls=c.tls)
            await c.leave()
    for mechanism in ("SCRAM-SHA-256-PLUS", "SCRAM-SHA-1-PLUS", "PLAIN"):
        c = Client("romeo@localhost/orchard", mechanism=mechanism, tls12=True)
        await c.start()
        show(login=str(c.boundjid), mechanism=c.mechanism, tls=c.tls)
        await c.leave()
    # Able to do channel binding but told not to, it suspects that somebody hid that from it.
    c = Client("romeo@localhost/orchard", mechanism="SCRAM-SHA-512", tls12=True)
    show(login=await c.start(), mechanism="SCRAM-SHA-512")
    await c.saw()
    c = Client("romeo@localhost/orchard", mechanism="SCRAM-SHA-512-PLUS", tls12=True, password="wrong")
    show(login=await c.start(), password="wrong")
    await c.saw()


async def conflict():
    old = await Client("romeo@localhost/orchard").online()
    new = Client("romeo@localhost/orchard")
    ended = old.disconnected
    await new.start()
    await old.saw()
    await ended
    show(login=str(new.boundjid))
    await new.saw_nothing()
    other = Client("romeo@localhost")
    await other.start()
    show(made_up=other.boundjid.bare, resource=len(other.boundjid.resource) > 0)
    await new.leave()
    await other.leave()


async def roster():
    orchard = await Client("romeo@localhost/orchard").online()
    phone = await Client("romeo@localhost/phone").start_quietly()
    show(set=await answer(orchard.update_roster("juliet@localhost", name="Jülïet & <Co>", groups=["Loves", "Capulets"])))
    await orchard.saw()
    await phone.saw()
    show(set=await answer(phone.update_roster("tybalt@elsewhere.test", name="", groups=[])))
    await orchard.saw()
    await phone.saw()
    show(versioning="rosterver" in orchard.features)
    orchard.show_roster(await orchard.get_roster())  # with the version of the last push
    await orchard.leave()
    show(change=await answer(phone.update_roster("juliet@localhost", name="Juliet", groups=["Loves"])))
    await phone.saw()
    await orchard.start()  # as the same object it remembers the version
    orchard.show_roster(await orchard.get_roster())
    await orchard.saw()
    await orchard.saw_nothing()
    show(remove=await answer(orchard.del_roster_item("tybalt@elsewhere.test")))
    await orchard.saw()
    await phone.saw()
    show(remove=await answer(orchard.del_roster_item("nobody@elsewhere.test")))
    fresh = Client("romeo@localhost/fresh")
    await fresh.start()
    fresh.show_roster(await fresh.get_roster())
    for c in (orchard, phone, fresh):
        await c.saw_nothing()
        await c.leave()


async def subscription():
    romeo = await Client("romeo@localhost/orchard").online()
    romeo.send_presence_subscription(pto="juliet@localhost", ptype="subscribe")
    await romeo.saw()
    juliet = await Client("juliet@localhost/balcony").online()
    await juliet.saw()
    await juliet.leave()
    juliet = await Client("juliet@localhost/balcony").online()  # not answered: asked again
    await juliet.saw()
    juliet.send_presence_subscription(pto="romeo@localhost", ptype="subscribed")
    await juliet.saw()
    await romeo.saw(3)
    juliet.send_presence_subscription(pto="romeo@localhost", ptype="subscribe")
    await juliet.saw()
    await romeo.saw()
    romeo.send_presence_subscription(pto="juliet@localhost", ptype="subscribed")
    await romeo.saw()
    await juliet.saw(3)

    juliet.send_presence(pshow="away", pstatus="Anon, good nurse!", ppriority=3)
    await juliet.saw()
    await romeo.saw()
    await juliet.cut()
    await romeo.saw()
    juliet = await Client("juliet@localhost/chamber").online(pshow="dnd")
    await juliet.saw()
    await romeo.saw()

    juliet.send_presence_subscription(pto="romeo@localhost", ptype="unsubscribed")
    await juliet.saw()
    await romeo.saw(3)
    await juliet.leave()
    await romeo.saw_nothing()
    show(remove=await answer(romeo.del_roster_item("juliet@localhost")))
    await romeo.saw()
    romeo.show_roster(await romeo.get_roster())
    await romeo.leave()


async def chat():
    romeo = await Client("romeo@localhost/orchard").online()
    juliet = await Client("juliet@localhost/balcony").online()
    romeo.send_message("juliet@localhost", "Art thou not <Romeo> & a \"Montague\"? 🌹", mtype="chat")
    await juliet.saw()
    juliet.send_message(romeo.boundjid, "Neither, fair saint", mtype="normal")
    await romeo.saw()
    romeo.send_message("juliet@localhost", "long " * 40000, mtype="chat")
    event, message = await juliet.incoming.get()
    show(client="juliet", saw=event, bytes=len(message["body"]))
    romeo.send_message("juliet@localhost/nowhere", "to a resource that is gone", mtype="chat")
    await juliet.saw()
    romeo.send_message("nobody@localhost", "who is there?", mtype="chat")
    await romeo.saw()
    romeo.send_message("juliet@localhost", "the end is nigh", mtype="headline")
    await juliet.saw()
    # From somebody else, as far as the sender says: RFC 6120 §8.1.2.1.
    romeo.send_message("juliet@localhost", "forged", mtype="chat", mfrom="tybalt@localhost/elsewhere")
    await romeo.saw()
    await juliet.saw_nothing()
    await juliet.leave()


async def offline():
    romeo = await Client("romeo@localhost/orchard").online()
    for body, kind in (("one", "chat"), ("two", "normal"), ("not kept", "headline"), ("three", "chat")):
        romeo.send_message("juliet@localhost", body, mtype=kind)
    await romeo.saw_nothing()
    juliet = Client("juliet@localhost/balcony")
    await juliet.start()
    await juliet.saw_nothing()  # not before presence
    await juliet.available(ppriority=-1)
    await juliet.saw_nothing()  # nor for a negative priority
    await juliet.available(ppriority=0)
    await juliet.saw(3)
    romeo.send_message("juliet@localhost", "after them", mtype="chat")
    _, message = await juliet.incoming.get()
    show(client="juliet", body=message["body"])
    await juliet.leave()
    juliet = await Client("juliet@localhost/balcony").online()
    await juliet.saw_nothing()  # once
    await romeo.leave()
    await juliet.leave()


async def blocking():
    romeo = await Client("romeo@localhost/orchard", "xep_0191").online()
    juliet = await Client("juliet@localhost/balcony", "xep_0191").online()
    for one, other in ((romeo, juliet), (juliet, romeo)):
        one.send_presence_subscription(pto=other.boundjid.bare, ptype="subscribe")
        await one.saw()
        await other.saw()
        other.send_presence_subscription(pto=one.boundjid.bare, ptype="subscribed")
        await other.saw()
        await one.saw(3)
    show(phase="blocked")
    block = juliet["xep_0191"]
    show(list=sorted(str(j) for j in (await block.get_blocked())["blocklist"]["items"]))
    show(block=await answer(block.block("romeo@localhost")))
    await juliet.saw()
    show(list=sorted(str(j) for j in (await block.get_blocked())["blocklist"]["items"]))
    await romeo.saw()
    romeo.send_message("juliet@localhost", "hear me", mtype="chat")
    await romeo.saw()
    show(ping=await answer(romeo["xep_0199"].send_ping(juliet.boundjid)))
    romeo.send_presence(pstatus="sad")
    await romeo.saw()
    await juliet.saw_nothing()
    juliet.send_message("romeo@localhost", "never", mtype="chat")
    await juliet.saw()
    show(ping=await answer(juliet["xep_0199"].send_ping(romeo.boundjid)))
    juliet.send_presence(pstatus="alone")
    await juliet.saw()
    await romeo.saw_nothing()
    show(phase="unblocked")
    show(unblock=await answer(block.unblock("romeo@localhost")))
    await juliet.saw()
    await romeo.saw()
    romeo.send_message("juliet@localhost", "hear me now", mtype="chat")
    await juliet.saw()
    show(ping=await answer(romeo["xep_0199"].send_ping(juliet.boundjid)))
    await romeo.saw_nothing()
    await juliet.leave()
    await romeo.leave()


async def services():
    romeo = await Client("romeo@localhost/orchard", "xep_0012", "xep_0049", "xep_0054", "xep_0092", "xep_0202").online()
    juliet = await Client("juliet@localhost/balcony", "xep_0012", "xep_0054", "xep_0092", "xep_0202").online()
    disco = romeo["xep_0030"]
    for jid in ("localhost", "romeo@localhost"):
        info = (await disco.get_info(jid))["disco_info"]
        wanted = FEATURES if jid == "localhost" else FEATURES_OF_AN_ACCOUNT
        show(info=jid, identities=sorted([i[0], i[1], i[3] or ""] for i in info["identities"]), missing=sorted(wanted - info["features"]))
    show(items="romeo@localhost", found=sorted(str(i[0]) for i in (await disco.get_items("romeo@localhost"))["disco_items"]["items"]))
    show(info="juliet@localhost", answer=await answer(disco.get_info("juliet@localhost")))  # a stranger
    show(info="nowhere", answer=await answer(disco.get_info("localhost", node="nowhere")))

    version = (await romeo["xep_0092"].get_version("localhost"))["software_version"]
    show(version=version["name"], number=len(version["version"]) > 0)
    show(version=await answer(romeo["xep_0092"].get_version(juliet.boundjid)))
    show(ping=await answer(romeo["xep_0199"].send_ping("localhost")))
    show(ping=await answer(romeo["xep_0199"].send_ping("romeo@localhost")))
    show(ping=await answer(romeo["xep_0199"].send_ping(juliet.boundjid)))
    show(ping=await answer(romeo["xep_0199"].send_ping("nobody@localhost/x")))
    at = (await romeo["xep_0202"].get_entity_time("localhost"))["entity_time"]
    # Not at["utc"]: slixmpp expects a time without the Z that XEP-0202 §2 demands.
    age = datetime.now(timezone.utc) - xep_0082.parse(at.xml.findtext("{urn:xmpp:time}utc"))
    show(time=abs(age.total_seconds()) < 60, tzo=at.xml.findtext("{urn:xmpp:time}tzo"))

    last = romeo["xep_0012"]
    uptime = (await last.get_last_activity("localhost"))["last_activity"]["seconds"]
    show(uptime=0 <= uptime < 60)
    show(last=await answer(last.get_last_activity("juliet@localhost")))
    romeo.send_presence_subscription(pto="juliet@localhost", ptype="subscribe")
    await romeo.saw()
    await juliet.saw()
    juliet.send_presence_subscription(pto="romeo@localhost", ptype="subscribed")
    await juliet.saw()
    await romeo.saw(3)
    show(last=(await last.get_last_activity("juliet@localhost"))["last_activity"]["seconds"])
    show(version=(await romeo["xep_0092"].get_version(juliet.boundjid))["software_version"]["name"])
    show(ping=await answer(romeo["xep_0199"].send_ping(juliet.boundjid)))
    juliet.send_presence(ptype="unavailable", pstatus="good night")
    await romeo.saw()
    await juliet.leave()
    answered = (await last.get_last_activity("juliet@localhost"))["last_activity"]
    show(last=0 <= answered["seconds"] < 60, status=answered["status"])

    class Stickies(slixmpp.xmlstream.ElementBase):
        name, namespace, plugin_attrib, interfaces, sub_interfaces = "stickies", "urn:example:stickies", "stickies", {"note"}, {"note"}

    private = romeo["xep_0049"]
    private.register(Stickies)
    show(private=(await private.retrieve("stickies"))["private"]["stickies"]["note"])
    note = Stickies()
    note["note"] = "buy <dagger> & poison"
    show(private=await answer(private.store(note)))
    show(private=(await private.retrieve("stickies"))["private"]["stickies"]["note"])

    vcards = romeo["xep_0054"]
    show(vcard=await answer(vcards.get_vcard(romeo.boundjid.bare, local=False, cached=False)))
    card = vcards.make_vcard()
    card["FN"], card["NICKNAME"] = "Romeo Montague", "Rö"
    show(vcard=await answer(vcards.publish_vcard(card)))
    show(vcard=(await vcards.get_vcard(romeo.boundjid.bare, local=False, cached=False))["vcard_temp"]["FN"])
    show(vcard=await answer(vcards.get_vcard("juliet@localhost", local=False, cached=False)))  # she has none
    show(vcard=await answer(vcards.get_vcard("nobody@localhost", local=False, cached=False)))
    juliet = await Client("juliet@localhost/balcony", "xep_0054").online()
    show(vcard=(await juliet["xep_0054"].get_vcard("romeo@localhost", local=False, cached=False))["vcard_temp"]["FN"])
    await juliet.leave()
    await romeo.leave()


async def registration():
    closed = Client("newcomer@localhost/x", "xep_0077")
    closed.add_event_handler("register", lambda form: show(form=form["type"]))
    show(closed=await closed.start())
    await closed.saw()

    async def register(form):
        show(form=sorted(form["register"]["fields"]), registered=form["register"]["registered"])
        for name in ("taken", "newcomer"):
            request = c.make_iq_set()
            request["register"]["username"], request["register"]["password"] = name, OPTIONS["password"]
            show(register=name, answer=await answer(request.send()))

    c = Client("newcomer@open.test/x", "xep_0077")
    c.add_event_handler("register", register)
    c._always_send_everything = True  # slixmpp 1.8.3 keeps IQs back until the session starts, these too
    show(open=await c.start(), mechanism=c.mechanism)
    form = (await c["xep_0077"].get_registration())["register"]
    show(registered=form["registered"], username=form["username"])
    show(change=await answer(c["xep_0077"].change_password("another")))
    await c.saw_nothing()  # the session goes on
    await c.leave()
    c = Client("newcomer@open.test/x", "xep_0077")
    show(old_password=await c.start())
    await c.saw()
    c = Client("newcomer@open.test/x", "xep_0077", password="another")
    show(new_password=await c.start())
    ended = c.disconnected
    show(remove=await answer(c["xep_0077"].cancel_registration()))
    await c.saw()
    await ended
    c = Client("newcomer@open.test/x", password="another")
    show(removed=await c.start())
    await c.saw()


async def administration():
    romeo = await Client("romeo@localhost/orchard", "xep_0050", "xep_0133").online()
    show(commands=[node for _, node, _ in (await romeo["xep_0133"].get_commands("localhost"))["disco_items"]["items"] if node.startswith(ADMIN)])
    show(add_user=await answer(romeo["xep_0050"].send_command("localhost", ADMIN + "add-user")))

    admin = await Client("admin@localhost/office", "xep_0050", "xep_0133").online()
    show(commands=sorted(node.removeprefix(ADMIN) for _, node, _ in (await admin["xep_0133"].get_commands("localhost"))["disco_items"]["items"] if node.startswith(ADMIN)))

    async def run(command, **values):
        """Goes through a command by slixmpp's own workflow: the form, then its answer."""
        step = asyncio.get_event_loop().create_future()
        session = {"next": lambda iq, session: step.set_result(iq), "error": lambda iq, session: step.set_exception(IqError(iq))}
        getattr(admin["xep_0133"], command)("localhost", session=session)
        iq = await step
        if iq["command"]["status"] == "executing":
            show(command=command, fields=[field["var"] for field in iq["command"]["form"]["fields"]])
            form = admin["xep_0004"].make_form(ftype="submit")
            for var, value in {"FORM_TYPE": ADMIN.removesuffix("#"), **values}.items():
                form.add_field(var=var, value=value)
            session["payload"] = form
            step = asyncio.get_event_loop().create_future()
            admin["xep_0050"].complete_command(session)
            try:
                iq = await step
            except IqError as err:
                show(command=command, error=err.condition)
                return
        results = {var: value for var, value in iq["command"]["form"]["values"].items() if var != "FORM_TYPE"}
        show(command=command, status=iq["command"]["status"], results=results)

    await run("add_user", accountjid="benvolio@localhost", password="p", **{"password-verify": "p"})
    await run("add_user", accountjid="benvolio@localhost", password="p", **{"password-verify": "p"})
    await run("add_user", accountjid="mercutio@localhost", password="p", **{"password-verify": "q"})
    benvolio = await Client("benvolio@localhost/x", password="p").online()
    await run("get_online_users_num")
    await run("end_user_session", accountjids=["benvolio@localhost"])
    await benvolio.saw()
    await run("change_user_password", accountjid="benvolio@localhost", password="new")
    benvolio = await Client("benvolio@localhost/x", password="new").online()
    await run("announce", announcement="The prince comes")
    await benvolio.saw()
    await run("delete_user", accountjids=["benvolio@localhost"])
    await benvolio.saw()
    benvolio = Client("benvolio@localhost/x", password="new")
    show(login=await benvolio.start())
    await admin.leave()
    await romeo.leave()


async def main():
    await asyncio.wait_for(globals()[sys.argv[1]](), OPTIONS["seconds"])


logging.basicConfig(level=logging.DEBUG, format="%(asctime)s %(levelname)s %(message)s")  # shown when the test fails
asyncio.get_event_loop().run_until_complete(main())
