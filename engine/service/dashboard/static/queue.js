// One buyer's place in the queue, told by the server until the answer itself comes.
// Read with fetch, because an EventSource cannot show a purchase token.

export class Queue {
  /** onPlace({position, ahead}) is told every move, onResult({status, body}) the answer. */
  constructor(path, { headers, onPlace, onResult }) {
    this.handlers = { queue: onPlace, result: onResult };
    this.aborter = new AbortController();
    // Without the stream the place is not known, and the request answers alone.
    this.#read(path, headers).catch(() => {});
  }

  close() {
    this.aborter.abort();
  }

  async #read(path, headers) {
    const { signal } = this.aborter;
    const response = await fetch(path, { headers, signal, cache: "no-store" });
    if (!response.ok) return;
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let text = "";
    for (;;) {
      const { value, done } = await reader.read();
      // A closed one tells nothing more, not even what has arrived.
      if (done || signal.aborted) return;
      const events = (text + value).split("\n\n");
      text = events.pop();
      events.forEach((event) => this.#tell(event));
    }
  }

  /** One event: lines of "name: value". */
  #tell(event) {
    const fields = Object.fromEntries(event.split("\n").map((line) => {
      const colon = line.indexOf(": ");
      return [line.slice(0, colon), line.slice(colon + 2)];
    }));
    this.handlers[fields.event]?.(JSON.parse(fields.data));
  }
}
