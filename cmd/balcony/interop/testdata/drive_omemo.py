"""OMEMO for drive_slixmpp.py, with the libraries of python-omemo: XEP-0384 in the namespaces of 0.3 (oldmemo) and 0.9 (twomemo)."""

import asyncio

import oldmemo
import oldmemo.etree
import omemo
import twomemo
import twomemo.etree
from slixmpp.exceptions import IqError

OLD, NEW = oldmemo.oldmemo.NAMESPACE, twomemo.twomemo.NAMESPACE
XML = {OLD: oldmemo.etree, NEW: twomemo.etree}
DEVICES = {OLD: "eu.siacs.conversations.axolotl.devicelist", NEW: "urn:xmpp:omemo:2:devices"}


def bundle_of(namespace, device):
    """The node and the item of a device's bundle."""
    return (f"eu.siacs.conversations.axolotl.bundles:{device}", "current") if namespace == OLD else ("urn:xmpp:omemo:2:bundles", str(device))


class Storage(omemo.Storage):
    def __init__(self):
        super().__init__(True)
        self.data = {}

    async def _load(self, key):
        return omemo.Just(self.data[key]) if key in self.data else omemo.Nothing()

    async def _store(self, key, value):
        self.data[key] = value

    async def _delete(self, key):
        self.data.pop(key, None)


class Device:
    """One client with its keys, which outlive its connections."""

    def __init__(self):
        self.storage = Storage()
        self.client = self.manager = None
        self.lists = asyncio.Queue()  # device lists of which it was notified

    async def use(self, client):
        """Speaks through a client that is logged in. The first time it publishes its device and its bundles."""
        self.client = client
        client.add_event_handler("pubsub_publish", self.notified)
        if self.manager is None:
            backends = [twomemo.Twomemo(self.storage), oldmemo.Oldmemo(self.storage)]
            self.manager = await self.kind().create(backends, self.storage, client.boundjid.bare, None, "blind")
        return self

    def kind(device):
        class Manager(omemo.SessionManager):
            @staticmethod
            async def _upload_bundle(bundle):
                node, item = bundle_of(bundle.namespace, bundle.device_id)
                await device.publish(node, item, XML[bundle.namespace].serialize_bundle(bundle), "max" if bundle.namespace == NEW else "1")

            @staticmethod
            async def _download_bundle(namespace, bare_jid, device_id):
                try:
                    return XML[namespace].parse_bundle(await device.get(bare_jid, *bundle_of(namespace, device_id)), bare_jid, device_id)
                except IqError as err:
                    raise omemo.BundleDownloadFailed(err.condition) from err

            @staticmethod
            async def _delete_bundle(namespace, device_id):
                raise NotImplementedError

            @staticmethod
            async def _upload_device_list(namespace, device_list):
                await device.publish(DEVICES[namespace], "current", XML[namespace].serialize_device_list(device_list), "1")

            @staticmethod
            async def _download_device_list(namespace, bare_jid):
                try:
                    return XML[namespace].parse_device_list(await device.get(bare_jid, DEVICES[namespace], "current"))
                except IqError as err:
                    if err.condition == "item-not-found":
                        return {}
                    raise omemo.DeviceListDownloadFailed(err.condition) from err

            async def _evaluate_custom_trust_level(self, device):
                return omemo.TrustLevel.TRUSTED

            async def _make_trust_decision(self, undecided, identifier):
                raise NotImplementedError

            @staticmethod
            async def _send_message(message, bare_jid):
                raise NotImplementedError  # only when a history was caught up with

        return Manager

    async def publish(self, node, item, payload, items):
        form = self.client["xep_0004"].make_form(ftype="submit")
        form.add_field(var="FORM_TYPE", ftype="hidden", value="http://jabber.org/protocol/pubsub#publish-options")
        for var, value in (("access_model", "open"), ("max_items", items), ("persist_items", "true")):
            form.add_field(var="pubsub#" + var, value=value)
        await self.client["xep_0060"].publish(self.client.boundjid.bare, node, id=item, payload=payload, options=form)

    async def get(self, jid, node, item):
        answer = await self.client["xep_0060"].get_item(jid, node, item)
        return answer["pubsub"]["items"]["item"]["payload"]

    def notified(self, message):
        node = message["pubsub_event"]["items"]["node"]
        for namespace, name in DEVICES.items():
            if node == name:
                ids = XML[namespace].parse_device_list(message["pubsub_event"]["items"]["item"]["payload"])
                self.lists.put_nowait((namespace, message["from"].bare, ids))

    async def learns(self, count):
        """Takes in the device lists of which it is notified; gives how many devices each has."""
        seen = []
        for _ in range(count):
            namespace, jid, ids = await self.lists.get()
            await self.manager.update_device_list(namespace, jid, ids)
            seen.append([namespace, jid, len(ids)])
        return sorted(seen)

    async def refresh(self, jid):
        for namespace in DEVICES:
            await self.manager.refresh_device_list(namespace, jid)

    async def say(self, to, namespace, text):
        """Sends an encrypted message to an account; gives for how many devices it is."""
        messages, errors = await self.manager.encrypt(frozenset({to}), {namespace: text.encode()}, backend_priority_order=[namespace])
        assert not errors, errors
        (message,) = messages
        stanza = self.client.make_message(to, "This message is encrypted.", mtype="chat")
        stanza.append(XML[namespace].serialize_message(message))
        stanza["id"] = self.client.new_id()
        stanza.enable("store")
        stanza.send()
        return len(message.keys)

    async def hears(self):
        """The next encrypted message, decrypted."""
        while True:
            event, stanza = await self.client.incoming.get()
            for namespace in XML:
                element = stanza.xml.find(f"{{{namespace}}}encrypted") if event == "message" else None
                if element is None:
                    continue
                sender = stanza["from"].bare
                if namespace == OLD:
                    message = await oldmemo.etree.parse_message(element, sender, self.client.boundjid.bare, self.manager)
                else:
                    message = twomemo.etree.parse_message(element, sender)
                text, _, _ = await self.manager.decrypt(message)
                return {"from": sender, "namespace": namespace, "text": text.decode(), "delayed": stanza.xml.find("{urn:xmpp:delay}delay") is not None}
