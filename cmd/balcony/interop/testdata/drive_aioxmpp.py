"""Drives aioxmpp for aioxmpp_test.go: drive_aioxmpp.py SCENARIO OPTIONS

Prints what happens, one JSON object a line, in the order in which the scenario looks at it.
"""

import asyncio
import json
import logging
import sys

import aiosasl
import aiosasl.channel_binding
import aioxmpp
import aioxmpp.connector
import aioxmpp.dispatcher
import aioxmpp.sasl
import aioxmpp.security_layer

OPTIONS = json.loads(sys.argv[2])


def show(**fact):
    print(json.dumps(fact, ensure_ascii=False), flush=True)


class ChannelBindingProvider(aioxmpp.security_layer.SASLProvider):
    """Logs in by one mechanism with channel binding, which aioxmpp's SASL library can do and aioxmpp itself never asks it for."""

    def __init__(self, mechanism):
        self.mechanism = mechanism

    async def execute(self, client_jid, features, xmlstream, tls_transport):
        async def credentials():
            return client_jid.localpart, OPTIONS["password"]

        binding = aiosasl.channel_binding.TLSServerEndPoint(tls_transport.get_extra_info("ssl_object"))
        show(binding=binding.cb_name.decode(), mechanism=self.mechanism, tls=tls_transport.get_extra_info("ssl_object").get_protocol_version_name())
        mechanism = aiosasl.SCRAMPLUS(credentials, binding)
        return await self._execute(aioxmpp.sasl.SASLXMPPInterface(xmlstream), mechanism, mechanism.any_supported([self.mechanism]))


def client(name, provider=None, direct_tls=False):
    jid = aioxmpp.JID.fromstr(name)

    def tls():
        context = aioxmpp.security_layer.default_ssl_context()
        context.load_verify_locations(OPTIONS["certificates"][jid.domain])
        return context

    async def password(_jid, attempt):
        return OPTIONS["password"] if attempt == 0 else None

    security = aioxmpp.security_layer.SecurityLayer(
        tls, aioxmpp.security_layer.PKIXCertificateVerifier, True, [provider or aioxmpp.security_layer.PasswordSASLProvider(password)]
    )
    connector = aioxmpp.connector.XMPPOverTLSConnector() if direct_tls else aioxmpp.connector.STARTTLSConnector()
    peer = (OPTIONS["host"], OPTIONS["direct_tls" if direct_tls else "starttls"], connector)
    return aioxmpp.PresenceManagedClient(jid, security, override_peer=[peer], max_initial_attempts=1)


async def login():
    for direct_tls in (False, True):
        for domain in ("localhost", "rsa256.test", "rsa384.test"):
            # Only RSA signatures: aiosasl does not see the hash in the name of any other.
            bound = [] if domain == "localhost" else [ChannelBindingProvider("SCRAM-SHA-256-PLUS"), ChannelBindingProvider("SCRAM-SHA-1-PLUS")]
            for provider in (None, *bound):
                c = client(f"romeo@{domain}/orchard", provider, direct_tls)
                async with c.connected():
                    show(login=str(c.local_jid))


async def chat():
    clients = {name: client(f"{name}@localhost/{resource}") for name, resource in (("romeo", "orchard"), ("juliet", "balcony"))}
    incoming = {name: asyncio.Queue() for name in clients}
    for name, c in clients.items():
        dispatcher = c.summon(aioxmpp.dispatcher.SimpleMessageDispatcher)
        dispatcher.register_callback(aioxmpp.MessageType.CHAT, None, incoming[name].put_nowait)
    async with clients["romeo"].connected(), clients["juliet"].connected():
        for sender, receiver, to, body in (
            ("romeo", "juliet", "juliet@localhost", "Art thou not <Romeo>? 🌹"),
            ("juliet", "romeo", "romeo@localhost/orchard", "Neither, fair saint"),
        ):
            message = aioxmpp.Message(type_=aioxmpp.MessageType.CHAT, to=aioxmpp.JID.fromstr(to))
            message.body[None] = body
            await clients[sender].send(message)
            got = await incoming[receiver].get()
            show(client=receiver, sender=str(got.from_), body=got.body.any())


logging.basicConfig(level=logging.DEBUG, format="%(asctime)s %(levelname)s %(message)s")  # shown when the test fails
asyncio.get_event_loop().run_until_complete(asyncio.wait_for(globals()[sys.argv[1]](), OPTIONS["seconds"]))
