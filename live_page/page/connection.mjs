/**
 * The websocket to the server, which comes back by itself.
 *
 * Every message is an event that is named after its first key (`welcome`, `settings`, `applied`,
 * `status`, `error`, `done`, `credits`, `role`), with the message as `detail`; a binary one is
 * `frame`. `state` tells "connecting", "open", "lost" and "refused" (which needs a new page).
 */
const FIRST_WAIT_MS = 500;
const LONGEST_WAIT_MS = 5000;
// A status comes twice a second: a connection this silent is dead, whatever the network says.
const SILENCE_MS = 6000;
const PROTOCOL = 1;

export class Connection extends EventTarget {
  #socket = null;
  #wait = FIRST_WAIT_MS;
  #watchdog = 0;
  #closed = false;

  /** `hello` holds the stream, the role and the codecs; `token` is the page's. */
  constructor(hello, token) {
    super();
    this.hello = hello;
    this.token = token;
    this.state = "connecting";
  }

  open() {
    const address = new URL("live/socket", document.baseURI);
    address.protocol = address.protocol.replace("http", "ws");
    address.search = "";
    const socket = new WebSocket(address);
    socket.binaryType = "arraybuffer";
    socket.onopen = () => this.send({ hello: PROTOCOL, token: this.token, ...this.hello });
    socket.onmessage = ({ data }) => this.#receive(data);
    socket.onclose = () => this.#lost(socket);
    this.#socket = socket;
    this.#listen();
  }

  /** Send a message, or a frame's bytes; whether it could be handed over. */
  send(message) {
    if (this.#socket?.readyState !== WebSocket.OPEN) return false;
    this.#socket.send(message instanceof ArrayBuffer ? message : JSON.stringify(message));
    return true;
  }

  /** Connect anew, with what `hello` says now. */
  reopen() {
    this.#socket?.close();
  }

  close() {
    this.#closed = true;
    clearTimeout(this.#watchdog);
    this.#socket?.close();
  }

  #receive(data) {
    this.#listen();
    if (data instanceof ArrayBuffer) return this.#tell("frame", data);
    const message = JSON.parse(data);
    if ("welcome" in message) {
      this.#wait = FIRST_WAIT_MS;
      this.#become("open");
    }
    if (message.code === "token") this.#renewToken();
    if (message.code === "version") {
      this.#become("refused");
      this.close();
    }
    this.#tell(Object.keys(message)[0], message);
  }

  #lost(socket) {
    if (this.#closed || socket !== this.#socket) return;
    clearTimeout(this.#watchdog);
    this.#become("lost");
    setTimeout(() => this.#closed || this.open(), this.#wait);
    this.#wait = Math.min(2 * this.#wait, LONGEST_WAIT_MS);
  }

  /** After a restart the server knows no token of before. */
  async #renewToken() {
    try {
      const answer = await fetch(new URL("live/token", document.baseURI), { cache: "no-store" });
      this.token = (await answer.json()).token;
    } catch (error) {
      console.info("The server is not there yet:", error.message);
    }
  }

  #listen() {
    clearTimeout(this.#watchdog);
    const socket = this.#socket;
    this.#watchdog = setTimeout(() => {
      socket.onclose = null;
      socket.close();
      this.#lost(socket);
    }, SILENCE_MS);
  }

  #become(state) {
    if (state === this.state) return;
    this.state = state;
    this.#tell("state", state);
  }

  #tell(name, detail) {
    this.dispatchEvent(new CustomEvent(name, { detail }));
  }
}
