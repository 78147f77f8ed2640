// Drives strophe.js and xmpp.js for web_test.go: drive.mjs OPTIONS
//
// Prints what happens, one JSON object a line, in the order in which the scenario looks at it.

import dns from "node:dns";
import { WebSocket } from "ws";
import xhr2 from "xhr2";
import { DOMParser } from "@xmldom/xmldom";
import { client, xml } from "@xmpp/client";

dns.setDefaultResultOrder("ipv4first");
globalThis.WebSocket = WebSocket;
globalThis.XMLHttpRequest ??= class extends xhr2.XMLHttpRequest {
  get responseXML() { return this.readyState === 4 && this.responseText ? new DOMParser().parseFromString(this.responseText, "text/xml") : null; }
  set responseXML(_) {}
};
globalThis.DOMParser ??= DOMParser; // what a browser has
const stored = new Map();
globalThis.sessionStorage = { getItem: (k) => stored.get(k) ?? null, setItem: (k, v) => stored.set(k, String(v)), removeItem: (k) => stored.delete(k) };
console.log = console.info = console.debug = console.error; // the library's log is not a fact
const { Strophe, $iq, $msg, $pres } = (await import("strophe.js"));

const options = JSON.parse(process.argv[2]);
const show = (fact) => process.stdout.write(JSON.stringify(fact) + "\n");
const late = setTimeout(() => { console.error("too late"); process.exit(1); }, options.seconds * 1000);

// Something that other code waits for until it has come.
class Inbox {
  #got = [];
  #wanted = [];
  put(x) { this.#wanted.length ? this.#wanted.shift()(x) : this.#got.push(x); }
  next() { return this.#got.length ? Promise.resolve(this.#got.shift()) : new Promise((ok) => this.#wanted.push(ok)); }
}

// A session of strophe.js.
class Strophic {
  constructor(service, jid) {
    this.messages = new Inbox();
    this.status = new Inbox();
    this.c = new Strophe.Connection(service, { keepalive: true, enableStreamManagement: true });
    this.service = service;
    this.jid = jid;
    this.seen = (s) => {
      const name = Object.entries(Strophe.Status).find(([, v]) => v === s)[0];
      if (["CONNECTED", "ATTACHED", "AUTHFAIL", "CONNFAIL", "DISCONNECTED"].includes(name)) this.status.put(name);
    };
  }
  listen() {
    this.c.addHandler((m) => { this.messages.put([m.getAttribute("from"), m.getElementsByTagName("body")[0].textContent]); return true; }, null, "message", "chat");
  }
  async online() {
    this.c.connect(this.jid, options.password, this.seen);
    const s = await this.status.next();
    this.listen();
    this.c.send($pres());
    return s;
  }
  // The page is closed: what is left of it is in sessionStorage.
  close() {
    const { socket, _requests } = this.c._proto;
    if (socket) {
      socket.onclose = socket.onerror = socket.onmessage = null;
      socket.terminate();
    } else {
      this.c._proto._cacheSession();
      for (const r of _requests) {
        r.xhr.onreadystatechange = () => {};
        r.xhr.abort();
      }
    }
    clearTimeout(this.c._idleTimeout);
    this.c._onIdle = () => {};
  }
  // The page is opened again.
  async open() {
    const next = new Strophic(this.service, this.jid);
    if (this.service.startsWith("http")) next.c.restore(this.jid, next.seen);
    else next.c.connect(this.jid, options.password, next.seen);
    next.listen();
    return [next, await next.status.next()];
  }
  async slot(file) {
    const s = await this.ask($iq({ type: "get", to: "upload.localhost" }).c("request", { xmlns: "urn:xmpp:http:upload:0", ...file }));
    return ["put", "get"].map((name) => s.getElementsByTagName(name)[0].getAttribute("url"));
  }
  ask(iq) { return new Promise((ok, no) => this.c.sendIQ(iq, ok, no)); }
  async roster() {
    const r = await this.ask($iq({ type: "get" }).c("query", { xmlns: "jabber:iq:roster" }));
    return [...r.getElementsByTagName("item")].map((i) => i.getAttribute("jid"));
  }
  say(to, text) { this.c.send($msg({ to, type: "chat" }).c("body").t(text)); }
  async end() { this.c.disconnect(); return this.status.next(); }
}

// A session of xmpp.js.
class XMPPjs {
  constructor(service, username, resource) {
    this.messages = new Inbox();
    this.x = client({ service, domain: "localhost", username, password: options.password, resource });
    this.x.on("error", (e) => console.error(e));
    this.x.on("stanza", (s) => { if (s.is("message") && s.getChild("body")) this.messages.put([s.attrs.from, s.getChildText("body")]); });
  }
  async online() { const j = await this.x.start(); await this.x.send(xml("presence")); return j.bare().toString(); }
  say(to, text) { return this.x.send(xml("message", { to, type: "chat" }, xml("body", {}, text))); }
  async addContact(jid) {
    await this.x.iqCaller.set(xml("query", { xmlns: "jabber:iq:roster" }, xml("item", { jid })));
    const r = await this.x.iqCaller.get(xml("query", { xmlns: "jabber:iq:roster" }));
    return r.getChildren("item").map((i) => i.attrs.jid);
  }
  async slot(file) {
    const xmlns = "urn:xmpp:http:upload:0";
    const s = await this.x.iqCaller.request(xml("iq", { type: "get", to: "upload.localhost" }, xml("request", { xmlns, ...file })));
    return ["put", "get"].map((name) => s.getChild("slot", xmlns).getChild(name).attrs.url);
  }
}

// A file goes up with a slot of one user, and another one fetches it.
async function upload(user, text) {
  const body = Buffer.from(text), type = "text/plain; charset=utf-8";
  const [put, get] = await user.slot({ filename: "farewell.txt", size: String(body.length), "content-type": type });
  const up = await fetch(put, { method: "PUT", body, headers: { "Content-Type": type } });
  const down = await fetch(get);
  return { put: up.status, get: down.status, type: down.headers.get("Content-Type"), whole: (await down.text()) === text };
}

let romeo = new Strophic(options.websocket, "romeo@localhost/orchard");
show({ "strophe.js over WebSocket": await romeo.online() });
let juliet = new Strophic(options.bosh, "juliet@localhost/balcony");
show({ "strophe.js over BOSH": await juliet.online() });
const mercutio = new XMPPjs(options.secure, "mercutio", "street");
show({ "xmpp.js over WebSocket with TLS": await mercutio.online() });

await romeo.ask($iq({ type: "set" }).c("query", { xmlns: "jabber:iq:roster" }).c("item", { jid: "juliet@localhost" }));
show({ "roster over WebSocket": await romeo.roster() });
await juliet.ask($iq({ type: "set" }).c("query", { xmlns: "jabber:iq:roster" }).c("item", { jid: "romeo@localhost" }));
show({ "roster over BOSH": await juliet.roster() });
show({ "roster with xmpp.js": await mercutio.addContact("romeo@localhost") });

const text = `wherefore <art> & "thou" – 🌹`;
romeo.say("juliet@localhost/balcony", text);
show({ "BOSH hears": await juliet.messages.next() });
juliet.say("romeo@localhost/orchard", text);
show({ "WebSocket hears": await romeo.messages.next() });
const mercutioJID = mercutio.x.jid.toString();
juliet.say(mercutioJID, "from BOSH");
show({ "xmpp.js hears": await mercutio.messages.next() });
await mercutio.say("juliet@localhost/balcony", "to BOSH");
show({ "BOSH hears from the same account": (await juliet.messages.next())[0] === mercutioJID });
for (let i = 0; i < 20; i++) romeo.say("juliet@localhost/balcony", String(i));
const order = [];
for (let i = 0; i < 20; i++) order.push((await juliet.messages.next())[1]);
show({ "twenty in order over BOSH": order.join(" ") });

show({ "upload over WebSocket": await upload(romeo, text) });
show({ "upload over BOSH": await upload(juliet, text) });
show({ "upload with xmpp.js": await upload(mercutio, text) });

// The page is loaded again: over WebSocket it resumes (XEP-0198), and gets what came meanwhile; BOSH goes on with the next request.
let how;
const { jid } = romeo.c;
romeo.close();
juliet.say("romeo@localhost", "while your page was closed");
[romeo, how] = await romeo.open();
show({ "a page over WebSocket again": how, resumed: romeo.c.hasResumed(), "as before": romeo.c.jid === jid });
show({ "it hears": await romeo.messages.next() });
const { sid } = juliet.c._proto;
juliet.close();
// BOSH has no acknowledgement that the library knows: what the server has given to a connection before it hears that this was closed is lost with the page.
for (let i = 0; i < 20; i++) await romeo.roster();
romeo.say("juliet@localhost/balcony", "while your page was closed");
[juliet, how] = await juliet.open();
show({ "a page over BOSH again": how, "as before": juliet.c._proto.sid === sid });
show({ "it hears": await juliet.messages.next() });

// The connection is cut: the library comes back and resumes (XEP-0198), and what was sent meanwhile arrives.
const resumed = new Promise((ok) => mercutio.x.streamManagement.on("resumed", ok));
const gone = new Promise((ok) => mercutio.x.once("disconnect", ok));
mercutio.x.socket.socket.terminate();
await gone;
romeo.say(mercutioJID, "while you were away");
await resumed;
// xmpp.js does not count the answers to its own IQs, so that some of what it has got comes again.
let m;
do m = await mercutio.messages.next(); while (m[1] === "from BOSH");
show({ "after resumption": m });

show({ "strophe.js leaves WebSocket": await romeo.end() });
show({ "strophe.js leaves BOSH": await juliet.end() });
await mercutio.x.stop();
clearTimeout(late);
process.exit(0);
