// The points of the last five minutes, and what the headline and the charts compute of them.

import { sum } from "./format.js";

export const WINDOW_SECONDS = 300;
const HEADLINE_MS = 2000;

export class History {
  points = [];

  /** A snapshot brings all points or, after a reconnect, the missed ones only: both fit. */
  addSnapshot({ history }) {
    if (history.length === 0) return;
    // By time and not by id: ids belong to one run of the server.
    const first = history[0].at_ms;
    this.points = [...this.points.filter((point) => point.at_ms < first), ...history];
  }

  add(point) {
    this.points.push(point);
    const oldest = point.at_ms - WINDOW_SECONDS * 1000;
    const keep = this.points.findIndex((each) => each.at_ms >= oldest);
    if (keep > 0) this.points.splice(0, keep);
  }

  /** Figures of the last two seconds: one interval alone flickers too much to be read. */
  headline() {
    const newest = this.points.at(-1);
    if (!newest) return null;
    const recent = this.points.filter((point) => point.at_ms > newest.at_ms - HEADLINE_MS);
    return {
      ...combine(recent),
      queue_depth: newest.queue_depth,
      lag_commits: newest.lag_commits,
      // The queue was full, it was not their turn in time, or nobody owned the partition.
      retry_5min: sum(this.points.map((point) => point.overloaded + point.expired + point.unserved)),
      unserved_5min: sum(this.points.map((point) => point.unserved)),
      unknown_5min: sum(this.points.map((point) => point.unknown)),
    };
  }

  /** One entry a second, so that every chart has at most 300 and rates are per second. */
  seconds() {
    const groups = new Map();
    for (const point of this.points) {
      const second = Math.floor(point.at_ms / 1000);
      if (!groups.has(second)) groups.set(second, []);
      groups.get(second).push(point);
    }
    const times = [...groups.keys()].sort((a, b) => a - b);
    // The newest second is still being counted, it would end every line with a dip.
    if (times.length > 1) times.pop();
    const found = [];
    for (const [index, time] of times.entries()) {
      // Nothing is known of a time without points: the line breaks there.
      if (index && time - times[index - 1] > 3) found.push({ time: time - 1 });
      found.push({ time, ...combine(groups.get(time)) });
    }
    return found;
  }
}

/** Several points as one. Counts become rates; the p99 is the worst one, for quantiles do not add. */
function combine(points) {
  const inSeconds = sum(points.map((point) => point.interval_ms)) / 1000;
  const rate = (pick) => sum(points.map(pick)) / inSeconds;
  const batches = sum(points.map((point) => point.batches));
  const timed = points.filter((point) => point.latency_ms);
  const orders = sum(timed.map((point) => point.decided));
  // The middle of the medians, weighted by their orders: close enough to watch a sale by.
  const p50 = sum(timed.map((point) => point.latency_ms.p50 * point.decided)) / orders;
  return {
    decided: rate((point) => point.decided),
    accepted: rate((point) => point.accepted),
    p50: orders ? p50 : null,
    p99: timed.length ? Math.max(...timed.map((point) => point.latency_ms.p99)) : null,
    batch_mean: batches
      ? sum(points.map((point) => point.batch_size_mean * point.batches)) / batches
      : null,
    batch_max: batches ? Math.max(...points.map((point) => point.batch_size_max)) : null,
    // A reason that closed no batch is left out.
    by_size: rate((point) => point.closed_by.size ?? 0),
    by_delay: rate((point) => point.closed_by.delay ?? 0),
    by_idle: rate((point) => point.closed_by.idle ?? 0),
    queue_depth: Math.max(...points.map((point) => point.queue_depth)),
    lag_commits: Math.max(...points.map((point) => point.lag_commits)),
  };
}
