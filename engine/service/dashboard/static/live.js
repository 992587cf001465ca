// One connection to /v1/stream that comes back by itself and never hides that it is gone.

const SILENCE_MS_MAX = 5000;
// Of the whole sale the server sends a point at least once a second: five missed ones are no
// accident.

const RETRY_MS_MIN = 1000;
const RETRY_MS_MAX = 15000;

export class Live {
  /**
   * onSnapshot(data) and onPoint(data) get the events; onState("live" | "lost", ageSeconds) is
   * told once a second how old the newest event is. ageSeconds is null before the first one.
   * After `silenceMsMax` without an event the connection is taken for dead and made anew.
   */
  constructor(url, { onSnapshot, onPoint, onState, silenceMsMax = SILENCE_MS_MAX }) {
    this.url = url;
    this.handlers = { snapshot: onSnapshot, point: onPoint };
    this.onState = onState;
    this.silenceMsMax = silenceMsMax;
    this.heardAt = null;
    this.failures = 0;
    this.watch = setInterval(() => this.#check(), 1000);
    this.#connect();
  }

  /** No more connection until resume(); a hidden page gives its place to others. */
  pause() {
    clearTimeout(this.retry);
    this.source?.close();
    this.source = null;
    this.paused = true;
  }

  resume() {
    if (!this.paused) return;
    this.paused = false;
    this.failures = 0;
    this.#connect();
  }

  #connect() {
    this.source?.close();
    this.triedAt = Date.now();
    // All pages hear the last event in the same moment; they must not come back in one as well.
    this.patienceMs = this.silenceMsMax * (1 + Math.random() / 2);
    const source = new EventSource(this.url);
    this.source = source;
    for (const [name, handle] of Object.entries(this.handlers)) {
      source.addEventListener(name, (event) => {
        this.heardAt = Date.now();
        this.failures = 0;
        handle(JSON.parse(event.data));
        this.onState("live", 0);
      });
    }
    source.addEventListener("error", () => {
      this.onState("lost", this.#age());
      // After a broken connection the browser tries again by itself, with Last-Event-ID. After a
      // refusal (503 while the server closes) it never does, so then it is tried anew from here.
      if (source.readyState === EventSource.CLOSED && source === this.source) this.#retryLater();
    });
  }

  #retryLater() {
    const limit = Math.min(RETRY_MS_MAX, RETRY_MS_MIN * 2 ** this.failures++);
    clearTimeout(this.retry);
    // The random half keeps thousands of pages from coming back in the same moment.
    this.retry = setTimeout(() => this.#connect(), limit * (0.5 + Math.random() / 2));
  }

  #check() {
    if (this.paused) return;
    const silentSince = Math.max(this.heardAt ?? 0, this.triedAt);
    const silent = Date.now() - silentSince > this.patienceMs;
    if (this.source.readyState !== EventSource.OPEN) this.onState("lost", this.#age());
    // A connection can die without an error, for instance when a network is switched off. If so
    // the new one is not open a second later; if not, nothing was lost and nobody is alarmed.
    else if (silent) this.#connect();
  }

  #age() {
    return this.heardAt === null ? null : Math.round((Date.now() - this.heardAt) / 1000);
  }
}
