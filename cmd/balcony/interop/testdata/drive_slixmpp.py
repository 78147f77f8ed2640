"""Drives slixmpp for slixmpp_test.go: drive_slixmpp.py SCENARIO OPTIONS

Prints what happens, one JSON object a line, in the order in which the scenario looks at it.
"""

import asyncio
import io
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
        for event in ("message", "message_error", "presence", "blocked", "unblocked", "stream_error", "failed_all_auth", "carbon_received", "carbon_sent"):
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

    async def back(self):
        """Connects again, and tells whether the session was resumed or begun anew."""
        how = {event: asyncio.ensure_future(self.wait_until(event, None)) for event in ("session_resumed", "session_start")}
        self.connect(address=(OPTIONS["host"], OPTIONS["starttls"]), use_ssl=False, force_starttls=True)
        await asyncio.wait(how.values(), return_when=asyncio.FIRST_COMPLETED)
        came = [event for event, future in how.items() if future.done()]
        for future in how.values():
            future.cancel()
        return came[0]

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

    async def forget(self):
        """Forgets what has come, with all that the server has sent by now."""
        await self["xep_0199"].ping(self.boundjid.domain)
        while not self.incoming.empty():
            self.incoming.get_nowait()

    async def wait_for(self, event, kind):
        """Waits for a stanza of that kind and forgets what comes before."""
        while True:
            name, data = await self.incoming.get()
            if name == event and data["type"] == kind:
                return data

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
    if event in ("carbon_received", "carbon_sent"):
        copy = stanza[event]
        return {"from": str(stanza["from"]), "type": stanza["type"], "copy from": str(copy["from"]), "to": str(copy["to"]), "body": copy["body"]}
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


async def resumption():
    romeo = await Client("romeo@localhost/orchard").online()
    juliet = await Client("juliet@localhost/balcony", "xep_0198").online()
    acked = []
    juliet.add_event_handler("stanza_acked", lambda stanza: acked.append(stanza["body"]) if stanza.name == "message" else None)
    romeo.send_message("juliet@localhost", "zero", mtype="chat")
    await juliet.saw()
    id = juliet["xep_0198"].sm_id
    for turn in ("first", "second"):
        await juliet.cut()
        for n in (1, 2):
            romeo.send_message("juliet@localhost", f"{turn} {n}", mtype="chat")
        await romeo.saw_nothing()
        show(turn=turn, how=await juliet.back(), same=juliet["xep_0198"].sm_id == id, jid=str(juliet.boundjid))
        await juliet.saw(2)
        juliet.send_message(romeo.boundjid, f"back from the {turn}", mtype="chat")
        await romeo.saw()
        await juliet.saw_nothing()
        juliet["xep_0198"].request_ack()  # slixmpp forgets what is not acknowledged when it resumes
        while not acked:
            await juliet.wait_until("stanza_acked", None)
        show(acknowledged=acked.pop())
    await juliet.cut()
    romeo.send_message("juliet@localhost", "kept", mtype="chat")
    await romeo.saw_nothing()
    juliet["xep_0198"].sm_id = "unknown"
    show(how=await juliet.back(), same=juliet["xep_0198"].sm_id == id)
    await juliet.available()
    await juliet.saw()
    await juliet.leave()
    await romeo.leave()


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


class Echo(slixmpp.ComponentXMPP):
    """A component that sends messages back, has presence, and describes itself."""

    def __init__(self):
        super().__init__("echo.localhost", "wherefore art thou", OPTIONS["host"], OPTIONS["component"])
        for plugin in ("xep_0030", "xep_0199"):
            self.register_plugin(plugin)
        self["xep_0030"].add_identity(category="gateway", itype="echo", name="Echo")
        self.add_event_handler("message", lambda m: m["type"] != "error" and m.reply(m["body"][::-1]).send())
        self.add_event_handler("presence_subscribe", self.subscribed)
        self.errors = asyncio.Queue()
        self.add_event_handler("message_error", lambda m: self.errors.put_nowait(
            [e.tag.split("}")[1] for e in m.xml.iter() if e.tag.startswith("{urn:ietf:params:xml:ns:xmpp-stanzas}")]))
        self.add_event_handler("stream_error", lambda e: self.errors.put_nowait(e["condition"]))

    async def start(self):
        self.connect()
        await self.wait_until("session_start", None)
        return self

    def subscribed(self, presence):
        self.send_presence(pto=presence["from"].bare, pfrom=presence["to"], ptype="subscribed")
        self.send_presence(pto=presence["from"].bare, pfrom=f"{presence['to'].bare}/home", pstatus="listening")

    async def cut(self):
        ended = self.disconnected
        self.abort()
        await ended


async def component():
    romeo = await Client("romeo@localhost/orchard").online()

    async def message(to, body):
        romeo.send_message(to, body, mtype="chat")
        await romeo.saw()

    async def listed():
        items = (await romeo["xep_0030"].get_items("localhost"))["disco_items"]["items"]
        return "echo.localhost" in [str(i[0]) for i in items]

    show(listed=await listed())
    await message("narcissus@echo.localhost", "nobody there")
    show(ping=await answer(romeo["xep_0199"].send_ping("echo.localhost")))
    echo = await Echo().start()
    show(listed=await listed())
    info = (await romeo["xep_0030"].get_info("echo.localhost"))["disco_info"]
    show(identities=[[i[0], i[1], i[3]] for i in info["identities"]], ping="urn:xmpp:ping" in info["features"])
    show(ping=await answer(romeo["xep_0199"].send_ping("echo.localhost")))
    show(ping=await answer(echo["xep_0199"].send_ping("localhost", ifrom="echo.localhost")))
    await message("narcissus@echo.localhost/pool", "Ïs <anybody> & here?")
    romeo.send_presence_subscription(pto="narcissus@echo.localhost", ptype="subscribe")
    await romeo.saw(4)
    echo.send_message("nobody@localhost", "who is there?", mtype="chat", mfrom="narcissus@echo.localhost")
    show(answer=await echo.errors.get())
    # Not its domain: RFC 6120 §4.9.3.9.
    ended = echo.disconnected
    echo.send_message("romeo@localhost", "forged", mfrom="juliet@localhost")
    show(stream=await echo.errors.get())
    await ended
    await message("narcissus@echo.localhost", "nobody there")
    # Killed and started again, several times.
    for _ in range(3):
        echo = await Echo().start()
        await message("narcissus@echo.localhost", "again")
        await echo.cut()
        while await listed():
            pass
        await message("narcissus@echo.localhost", "nobody there")
    await romeo.saw_nothing()
    await romeo.leave()


async def upload():
    import aiohttp

    romeo = await Client("romeo@localhost/orchard", "xep_0363").online()
    juliet = await Client("juliet@localhost/balcony").online()
    plugin = romeo["xep_0363"]
    # What its find_upload_service does where Python lets it.
    for item in (await romeo["xep_0030"].get_items("localhost"))["disco_items"]["items"]:
        info = (await romeo["xep_0030"].get_info(item[0]))["disco_info"]
        if ("store", "file") in [i[:2] for i in info["identities"]] and "urn:xmpp:http:upload:0" in info["features"]:
            plugin.upload_service = slixmpp.JID(item[0])
            plugin.max_file_size = int(info.xml.find(".//{jabber:x:data}field[@var='max-file-size']/{jabber:x:data}value").text)
    content = bytes(range(256)) * 10000
    url = await plugin.upload_file("balcony & garden.png", input_file=io.BytesIO(content))
    show(service=str(plugin.upload_service), most=plugin.max_file_size, https=url.startswith("https://localhost:"), ending=url.endswith(".png"))
    romeo.send_message("juliet@localhost", url, mtype="chat")
    _, message = await juliet.incoming.get()
    trust = ssl.create_default_context(cafile=OPTIONS["certificates"]["localhost"])
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=trust)) as http:
        async with http.get(message["body"]) as got:
            show(status=got.status, type=got.headers["Content-Type"], same=await got.read() == content)
        async with http.head(message["body"]) as got:
            show(status=got.status, length=got.headers["Content-Length"])
        async with http.get(message["body"], headers={"Range": "bytes=256-511"}) as got:
            show(status=got.status, same=await got.read() == bytes(range(256)))
    show(too_large=await answer(plugin.request_slot("upload.localhost", "a", 10**12)))
    await romeo.leave()
    await juliet.leave()


async def friends(one, other):
    """Each becomes a contact of the other."""
    for a, b in ((one, other), (other, one)):
        a.send_presence_subscription(pto=b.boundjid.bare, ptype="subscribe")
        await b.wait_for("presence", "subscribe")
        b.send_presence_subscription(pto=a.boundjid.bare, ptype="subscribed")
        await a.wait_for("presence", "subscribed")


async def pep():
    plugins = ("xep_0054", "xep_0060", "xep_0084", "xep_0115", "xep_0153", "xep_0163", "xep_0172", "xep_0222", "xep_0223")
    romeo = Client("romeo@localhost/orchard", *plugins)
    juliet = Client("juliet@localhost/balcony", *plugins)
    events = asyncio.Queue()
    for event in ("user_nick_publish", "avatar_metadata_publish"):
        romeo.add_event_handler(event, lambda m, event=event: events.put_nowait((event, m)))
    assert await romeo.start() and await juliet.start()
    await romeo.get_roster()
    await juliet.get_roster()
    await juliet.available()
    show(nick=await answer(juliet["xep_0172"].publish_nick("Juliet")))
    romeo["xep_0163"].register_pep("user_nick", slixmpp.plugins.xep_0172.UserNick)
    romeo["xep_0163"].add_interest("urn:xmpp:avatar:metadata")
    await romeo["xep_0115"].update_caps()
    await romeo.available()
    await friends(romeo, juliet)
    event, message = await events.get()
    show(event=event, nick=message["pubsub_event"]["items"]["item"]["nick"]["nick"])
    image = bytes(range(256)) * 40
    digest = juliet["xep_0084"].generate_id(image)
    show(data=await answer(juliet["xep_0084"].publish_avatar(image)))
    show(metadata=await answer(juliet["xep_0084"].publish_avatar_metadata([{"id": digest, "type": "image/png", "bytes": len(image)}])))
    event, message = await events.get()
    info = message["pubsub_event"]["items"]["item"]["avatar_metadata"]["items"]
    show(event=event, **{"from": str(message["from"]), "ids": [i["id"] == digest for i in info]})
    got = await romeo["xep_0084"].retrieve_avatar("juliet@localhost", digest)
    show(same=got["pubsub"]["items"]["item"]["avatar_data"]["value"] == image)
    # For everybody: now it is in the vCard too.
    for node in ("urn:xmpp:avatar:data", "urn:xmpp:avatar:metadata"):
        config = await juliet["xep_0060"].get_node_config("juliet@localhost", node)
        form = config["pubsub_owner"]["configure"]["form"]
        answers = form.get_values()
        form.reply()
        form["type"] = "submit"
        form.set_values({**answers, "pubsub#access_model": "open"})
        show(configured=await answer(juliet["xep_0060"].set_node_config("juliet@localhost", node, form)))
    show(metadata=await answer(juliet["xep_0084"].publish_avatar_metadata([{"id": digest, "type": "image/png", "bytes": len(image)}])))
    card = await romeo["xep_0054"].get_vcard("juliet@localhost", cached=False)
    show(photo=card["vcard_temp"]["PHOTO"]["BINVAL"] == image, type=card["vcard_temp"]["PHOTO"]["TYPE"])
    secret = slixmpp.plugins.xep_0172.UserNick()
    secret["nick"] = "rose"
    show(store=await answer(juliet["xep_0223"].store(secret, node="urn:example:private", id="a")))
    show(owner=await answer(juliet["xep_0060"].get_items("juliet@localhost", "urn:example:private")))
    show(contact=await answer(romeo["xep_0060"].get_items("juliet@localhost", "urn:example:private")))
    show(public=await answer(juliet["xep_0222"].store(secret, node="urn:example:public", id="a")))
    show(contact=await answer(romeo["xep_0060"].get_items("juliet@localhost", "urn:example:public")))
    await romeo.leave()
    await juliet.leave()


async def omemo():
    from drive_omemo import DEVICES, NEW, OLD, Device

    plugins = ("xep_0004", "xep_0060", "xep_0115", "xep_0163", "xep_0334")

    def client(jid):
        c = Client(jid, *plugins)
        for node in DEVICES.values():
            c["xep_0163"].add_interest(node)
        return c

    # Juliet publishes her device and goes.
    juliet = client("juliet@localhost/balcony")
    assert await juliet.start()
    hers = await Device().use(juliet)
    await juliet.leave()
    # Romeo, a stranger to her, writes to her while she is away.
    romeo = client("romeo@localhost/orchard")
    assert await romeo.start()
    await romeo.get_roster()
    await romeo["xep_0115"].update_caps()
    await romeo.available()
    his = await Device().use(romeo)
    show(own=await his.learns(2))
    await his.refresh("juliet@localhost")
    for namespace in (OLD, NEW):
        show(sent=await his.say("juliet@localhost", namespace, "by yonder blessed moon"))
    await romeo.forget()
    juliet = client("juliet@localhost/balcony")
    assert await juliet.start()
    await juliet.get_roster()
    await juliet.available()
    await hers.use(juliet)
    for _ in range(2):
        show(heard=await hers.hears())
    # Both online.
    await hers.refresh("romeo@localhost")
    for namespace in (OLD, NEW):
        show(sent=await hers.say("romeo@localhost", namespace, "swear not by the moon"))
        show(heard=await his.hears())
    # Contacts: her lists come by themselves, and again when another device of hers joins.
    await friends(romeo, juliet)
    show(learnt=await his.learns(2))
    phone = client("juliet@localhost/phone")
    assert await phone.start()
    second = await Device().use(phone)
    show(learnt=await his.learns(2))
    await phone.leave()
    for namespace in (OLD, NEW):
        show(sent=await his.say("juliet@localhost", namespace, "what shall I swear by"))
        show(heard=await hers.hears())
    await juliet.leave()
    # She is away, and a contact: the message is for both devices, and the first one that comes gets it.
    await romeo.wait_for("presence", "unavailable")
    for namespace in (OLD, NEW):
        show(sent=await his.say("juliet@localhost", namespace, "my heart's dear love"))
    await romeo.forget()
    phone = client("juliet@localhost/phone")
    assert await phone.start()
    await phone.get_roster()
    await phone.available()
    await second.use(phone)
    for _ in range(2):
        show(heard=await second.hears())
    await phone.leave()
    await romeo.leave()


async def pubsub():
    romeo = Client("romeo@localhost/orchard", "xep_0060", "xep_0004")
    juliet = Client("juliet@localhost/balcony", "xep_0060", "xep_0004")
    events = asyncio.Queue()
    for event in ("pubsub_publish", "pubsub_retract", "pubsub_purge", "pubsub_delete"):
        romeo.add_event_handler(event, lambda m, event=event: events.put_nowait((event, m)))
    assert await romeo.start() and await juliet.start()
    await romeo.available()
    service = "pubsub.localhost"
    info = (await romeo["xep_0030"].get_info(service))["disco_info"]
    show(identities=sorted([i[0], i[1]] for i in info["identities"]), publish="http://jabber.org/protocol/pubsub#publish" in info["features"])
    p, q = juliet["xep_0060"], romeo["xep_0060"]
    show(create=await answer(p.create_node(service, "princely_musings")), again=await answer(p.create_node(service, "princely_musings")))
    show(nodes=sorted(i[1] for i in (await q.get_nodes(service))["disco_items"]["items"]))
    subscribed = (await q.subscribe(service, "princely_musings"))["pubsub"]["subscription"]
    show(subscription=subscribed["subscription"], jid=str(subscribed["jid"]))
    payload = slixmpp.xmlstream.ET.fromstring("<entry xmlns='http://www.w3.org/2005/Atom'><title>Soliloquy</title></entry>")
    for i in ("a", "b", "c"):
        await p.publish(service, "princely_musings", id=i, payload=payload)
        event, message = await events.get()
        show(event=event, id=message["pubsub_event"]["items"]["item"]["id"], title=message["pubsub_event"]["items"]["item"]["payload"][0].text)
    show(items=[i["id"] for i in (await q.get_items(service, "princely_musings"))["pubsub"]["items"]])
    show(newest=[i["id"] for i in (await q.get_items(service, "princely_musings", max_items=2))["pubsub"]["items"]])
    show(one=[i["id"] for i in [(await q.get_item(service, "princely_musings", "b"))["pubsub"]["items"]["item"]]])
    show(forbidden=await answer(q.publish(service, "princely_musings", id="d", payload=payload)))
    show(affiliations=sorted((str(a["jid"]), a["affiliation"]) for a in (await p.get_node_affiliations(service, "princely_musings"))["pubsub_owner"]["affiliations"]))
    show(modify=await answer(p.modify_affiliations(service, "princely_musings", [("romeo@localhost", "publisher")])))
    show(allowed=await answer(q.publish(service, "princely_musings", id="d", payload=payload)))
    event, message = await events.get()
    show(event=event, id=message["pubsub_event"]["items"]["item"]["id"])
    show(subscriptions=sorted((str(a["jid"]), a["subscription"]) for a in (await p.get_node_subscriptions(service, "princely_musings"))["pubsub_owner"]["subscriptions"]))
    show(retract=await answer(p.retract(service, "princely_musings", "a", notify=True)))
    event, message = await events.get()
    show(event=event, id=message["pubsub_event"]["items"]["retract"]["id"])
    show(purge=await answer(p.purge(service, "princely_musings")))
    show(event=(await events.get())[0])
    show(unsubscribe=await answer(q.unsubscribe(service, "princely_musings")))
    show(again=await answer(q.unsubscribe(service, "princely_musings")))
    show(forbidden=await answer(q.delete_node(service, "princely_musings")), delete=await answer(p.delete_node(service, "princely_musings")))
    show(gone=await answer(q.get_items(service, "princely_musings")))
    await romeo.leave()
    await juliet.leave()


async def mam():
    romeo = await Client("romeo@localhost/orchard").online()
    nurse = await Client("nurse@localhost/house").online()
    juliet = await Client("juliet@localhost/balcony", "xep_0313", "xep_0359").online()
    plugin = juliet["xep_0313"]
    sent, got = [], []
    for n in range(25):
        who = nurse if n % 5 == 4 else romeo
        sent.append(f"{who.name} {n}")
        who.send_message("juliet@localhost", sent[n], mtype="chat")
        _, message = await juliet.incoming.get()
        got.append(message["stanza_id"]["id"])  # what the client can ask for without having asked for the archive before
    bodies = lambda messages: [m["mam_result"]["forwarded"]["stanza"]["body"] for m in messages]
    ids = lambda messages: [m["mam_result"]["id"] for m in messages]

    async def pages(**query):
        return [m async for m in plugin.iterate(**query)]

    async def page(**query):
        iq = await plugin.retrieve(**query)
        return bodies(iq["mam"]["results"]), iq["mam_fin"]

    everything = await pages(rsm={"max": 4})
    show(pages_of_4=bodies(everything) == sent, ids=ids(everything) == got)
    backwards = await pages(rsm={"max": 7}, reverse=True)
    show(backwards=bodies(backwards) == sent[::-1])
    first, fin = await page(rsm={"max": 3})
    show(first_page=first, complete=fin["complete"], count=fin["rsm"]["count"], index=fin["rsm"]["first_index"], ends=[fin["rsm"]["first"] == got[0], fin["rsm"]["last"] == got[2]])
    show(last_page=bodies(await pages(rsm={"max": 3}, reverse=True, total=3)))
    show(after=(await page(rsm={"max": 3, "after": got[9]}))[0], before=(await page(rsm={"max": 3, "before": got[9]}))[0])
    show(with_bare=bodies(await pages(with_jid="nurse@localhost", rsm={"max": 2})), with_full=(await page(with_jid="nurse@localhost/house"))[0] == sent[4::5],
         with_other=(await page(with_jid="nurse@localhost/garden"))[0], with_nobody=(await page(with_jid="tybalt@localhost"))[0])
    stamps = [m["mam_result"]["forwarded"]["delay"]["stamp"] for m in everything]
    show(start=(await page(start=stamps[20]))[0], end=(await page(end=stamps[3]))[0], between=(await page(start=stamps[10], end=stamps[12]))[0])
    show(all_at_once=bodies(await pages(start=stamps[4], end=stamps[19], with_jid="nurse@localhost", reverse=True, rsm={"max": 2})))
    metadata = (await plugin.get_archive_metadata())["mam_metadata"]
    show(metadata=[metadata[end]["id"] == id and metadata[end]["timestamp"] == stamp for end, id, stamp in (("start", got[0], stamps[0]), ("end", got[-1], stamps[-1]))])
    show(fields=sorted((await plugin.get_fields()).get_fields()))
    show(unknown_id=await answer(plugin.retrieve(rsm={"after": "28482-98726-73623"})), of_another=await answer(plugin.retrieve(jid="romeo@localhost")))
    for c in (romeo, nurse, juliet):
        await c.saw_nothing()
        await c.leave()


async def carbons():
    romeo = await Client("romeo@localhost/orchard").online()
    balcony = await Client("juliet@localhost/balcony", "xep_0280", "xep_0313").online()
    chamber = Client("juliet@localhost/chamber", "xep_0280", "xep_0313")
    await chamber.start_quietly()
    for juliet in (balcony, chamber):
        show(enable=await answer(juliet["xep_0280"].enable()))
    chamber.send_presence()
    await chamber.forget()
    await balcony.forget()
    romeo.send_message(balcony.boundjid, "to one of two", mtype="chat")
    await balcony.saw()
    await chamber.saw()
    balcony.send_message("romeo@localhost", "from one of two", mtype="chat")
    await romeo.saw()
    await chamber.saw()
    romeo.send_message("juliet@localhost", "to both", mtype="chat")
    await balcony.saw()
    await chamber.saw()
    romeo.send_message("juliet@localhost/gone", "to neither", mtype="normal")
    await balcony.saw()
    await chamber.saw()
    private = balcony.make_message("romeo@localhost", "between us", mtype="chat")
    private.enable("carbon_private")
    private.send()
    await romeo.saw()
    await chamber.saw_nothing()
    show(disable=await answer(chamber["xep_0280"].disable()))
    romeo.send_message(balcony.boundjid, "to one alone", mtype="chat")
    await balcony.saw()
    await chamber.saw_nothing()
    await romeo.saw_nothing()
    # What the devices have not got live is in the archive, in pages of two.
    ids = set()
    async for found in chamber["xep_0313"].iterate(with_jid=slixmpp.JID("romeo@localhost"), rsm={"max": 2}):
        result = found["mam_result"]
        message = result["forwarded"]["stanza"]
        ids.add(result["id"])
        show(archived=message["body"], by=message["from"].user)
    show(ids=len(ids))
    for client in (romeo, balcony, chamber):
        await client.leave()


async def main():
    await asyncio.wait_for(globals()[sys.argv[1]](), OPTIONS["seconds"])


logging.basicConfig(level=logging.DEBUG, format="%(asctime)s %(levelname)s %(message)s")  # shown when the test fails
asyncio.get_event_loop().run_until_complete(main())
