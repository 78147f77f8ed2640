// Drives Converse.js in a browser for converse_test.go: browse.mjs OPTIONS
//
// Prints what its users see, one JSON object a line, in the order in which the scenario looks at it.

import { readFile } from "node:fs/promises";
import { basename, join } from "node:path";
import puppeteer from "puppeteer-core";

const options = JSON.parse(process.argv[2]);
const show = (fact) => process.stdout.write(JSON.stringify(fact) + "\n");

const browser = await puppeteer.launch({
  executablePath: options.browser,
  args: [
    ...(process.getuid() === 0 ? ["--no-sandbox"] : []), // root cannot have one
    `--ignore-certificate-errors-spki-list=${options.key}`, // the server's own certificate and no other
    `--host-resolver-rules=MAP ${options.domain} ${options.https},MAP * ~NOTFOUND,EXCLUDE 127.0.0.1`, // nothing but this machine
    "--disable-gpu", "--disable-dev-shm-usage",
  ],
});

const users = [];
let step = "";
setTimeout(async () => {
  console.error("too late:", step);
  for (const u of users) {
    console.error(u.name, u.wire.slice(-30));
    await u.picture("late");
  }
  process.exit(1);
}, options.seconds * 1000).unref();

// The page of a user, in a browser that has nothing else.
class User {
  wire = []; // what the streams of the page send and get

  static async open(name, settings) {
    const u = new User();
    u.name = name;
    u.address = `${options.page}#${encodeURIComponent(JSON.stringify(settings))}`;
    u.page = await (await browser.createBrowserContext()).newPage();
    users.push(u);
    u.page.setDefaultTimeout(0);
    u.page.on("console", (m) => console.error(name, m.type(), m.text()));
    u.page.on("pageerror", (e) => console.error(name, "error", e.message));
    u.page.on("requestfailed", (r) => console.error(name, "failed", r.method(), r.url(), r.failure()?.errorText));
    u.page.on("request", (r) => r.url().endsWith("/http-bind") && r.method() === "POST" && u.wire.push(r.postData() ?? ""));
    const devtools = await u.page.createCDPSession();
    await devtools.send("Network.enable");
    devtools.on("Network.webSocketCreated", (e) => u.wire.push(`connect ${e.url}`));
    for (const way of ["Sent", "Received"]) devtools.on(`Network.webSocketFrame${way}`, (e) => u.wire.push(e.response.payloadData));
    await u.come();
    return u;
  }
  come() { return this.page.goto(this.address); }
  leave() { return this.page.goto("about:blank"); }
  picture(of) { return this.page.screenshot({ path: join(options.pictures, `${this.name} ${of}.png`) }); }

  // Waits until a function of the page returns something, and returns that.
  async see(what, f, ...args) {
    step = `${this.name}: ${what}`;
    return (await this.page.waitForFunction(f, { polling: 50 }, ...args)).jsonValue();
  }
  async click(selector) {
    step = `${this.name}: ${selector}`;
    await this.page.waitForSelector(selector);
    await this.page.$eval(selector, (e) => e.click());
  }
  // Writes a text at once: between two keys the page may draw the field anew.
  async type(selector, text) {
    step = `${this.name}: ${selector}`;
    await (await this.page.waitForSelector(selector)).focus();
    await this.page.keyboard.sendCharacter(text);
  }

  async login() {
    await this.type("#converse-login input[name=jid]", `${this.name}@${options.domain}`);
    await this.type("#converse-login input[name=password]", options.password);
    await this.click("#converse-login button[type=submit]");
    return this.see("status", () => document.querySelector("converse-user-profile .xmpp-status")?.textContent.trim());
  }
  async addContact(jid, name) {
    await this.click("converse-roster .add-contact");
    await this.type("form.add-xmpp-contact input[name=jid]", jid);
    await this.type("form.add-xmpp-contact input[name=name]", name);
    await this.click("form.add-xmpp-contact [type=submit]");
  }
  // The roster, when all in it are online.
  roster() {
    return this.see("roster", () => {
      const all = [...document.querySelectorAll("converse-roster-contact a.open-chat")];
      return all.length > 1 && all.every((a) => a.querySelector(".contact-name--online")) && all.map((a) => a.querySelector(".contact-name").textContent.trim());
    });
  }
  chat(jid) { return this.click(`converse-roster-contact a.open-chat[data-jid="${jid}"]`); }
  async say(text) {
    await this.type("textarea.chat-textarea", text);
    await this.page.keyboard.press("Enter");
  }
  hears(text) {
    return this.see(text, (text) => [...document.querySelectorAll(".chat-msg__text")].filter((m) => m.textContent.trim() === text).length, text);
  }
  async attach(file) {
    step = `${this.name}: attach`;
    await (await this.page.waitForSelector(".chat-toolbar .fileupload")).uploadFile(file);
  }
  // The size of the picture of the conversation, when it is there.
  seesPicture() {
    return this.see("picture", () => {
      const i = document.querySelector(".chat-msg img.chat-image");
      return i?.complete && i.naturalWidth > 0 && `${i.naturalWidth}×${i.naturalHeight}`;
    });
  }
  // Whether the page may read the file of the conversation, and it is that one.
  async reads(file) {
    const url = await this.see(basename(file), (name) => [...document.querySelectorAll(".chat-msg a")].find((a) => a.href.endsWith("/" + name))?.href, basename(file));
    const got = await this.page.evaluate(async (url) => [...new Uint8Array(await (await fetch(url)).arrayBuffer())], url);
    return Buffer.from(got).equals(await readFile(file));
  }
  connects() { return this.wire.filter((x) => x.startsWith("connect ")).map((x) => x.slice(8)); }
  count(part) { return this.wire.filter((x) => x.includes(part)).length; }
  sessions() { return new Set(this.wire.map((x) => x.match(/ sid="([^"]+)"/)?.[1]).filter((x) => x)).size; }
}

// One finds the server by XEP-0156, the other is told where BOSH is.
const romeo = await User.open("romeo", {});
show({ "Romeo logs in": await romeo.login(), over: romeo.connects() });
const juliet = await User.open("juliet", { bosh_service_url: options.bosh, discover_connection_methods: false, auto_subscribe: true });
show({ "Juliet logs in": await juliet.login(), over: juliet.sessions() + " BOSH" });

await romeo.addContact("juliet@" + options.domain, "Juliet");
for (const u of users) show({ roster: await u.roster() });

await romeo.chat("juliet@" + options.domain);
await juliet.chat("romeo@" + options.domain);
const text = `wherefore <art> & "thou" – 🌹`;
await romeo.say(text);
show({ "Juliet hears": text, times: await juliet.hears(text) });
await juliet.say("Romeo, doff thy name");
show({ "Romeo hears": "Romeo, doff thy name", times: await romeo.hears("Romeo, doff thy name") });

// The button of the page: XEP-0363. The other page shows the picture.
await romeo.attach(options.picture);
show({ "Juliet sees": await juliet.seesPicture(), whole: await juliet.reads(options.picture) });
await juliet.attach(options.file);
show({ "Romeo reads": basename(options.file), whole: await romeo.reads(options.file) });

// The page goes away for a while: XEP-0198.
await romeo.leave();
await juliet.say("while you were away");
await juliet.hears("while you were away");
await romeo.come();
show({ "Romeo hears": "while you were away", times: await romeo.hears("while you were away") });
await romeo.say("I am back");
show({ "Juliet hears": "I am back", times: await juliet.hears("I am back") });

// The page is loaded again: BOSH goes on with the next request.
step = "juliet: reload";
await juliet.page.reload();
await juliet.chat("romeo@" + options.domain);
await romeo.say("parting is such sweet sorrow");
show({ "Juliet hears": "parting is such sweet sorrow", times: await juliet.hears("parting is such sweet sorrow") });
await juliet.say("till it be morrow");
show({ "Romeo hears": "till it be morrow", times: await romeo.hears("till it be morrow") });
show({ "Romeo's WebSockets": romeo.connects().length, resumed: romeo.count("<resumed "), bound: romeo.count("<bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'><jid>"), errors: romeo.count("<stream:error") });
show({ "Juliet's BOSH sessions": juliet.sessions(), "without a sid": juliet.wire.filter((x) => !x.includes(" sid=")).length });

for (const u of users) {
  step = `${u.name}: picture`;
  await u.seesPicture();
  await u.picture("in conversation");
}
await browser.close();
