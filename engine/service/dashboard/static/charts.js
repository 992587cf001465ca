// Five uPlot charts over the same minutes. The legend of each shows the headline's values, or
// those of the second under the pointer; it is text, so it is also what a screen reader finds.

import { WINDOW_SECONDS } from "./history.js";
import { byId, clock, count, decimal, element, setText } from "./format.js";

/* global uPlot -- defined by vendor/uplot/uPlot.iife.min.js */

// A server that has just been started would fill a corner of five minutes only. The width grows in
// steps, for a scale that glides cannot be read.
const WIDTHS_SECONDS = [60, 120, 180, WINDOW_SECONDS];

// `stacked` draws each series on top of those after it, so their sum is the outline.
const CHARTS = [
  {
    title: "Orders/s", wide: true, format: decimal,
    series: [["decided", "decided", "--line-1"], ["accepted", "accepted", "--line-2"]],
  },
  {
    title: "Latency, ms", format: decimal,
    series: [["p99", "p99", "--line-3"], ["p50", "p50", "--line-1"]],
  },
  {
    title: "Batch size, orders", format: decimal,
    series: [["max", "batch_max", "--line-3"], ["mean", "batch_mean", "--line-1"]],
  },
  {
    title: "Waiting", format: count,
    series: [["queue, orders", "queue_depth", "--line-1"],
      ["lag, commits", "lag_commits", "--line-3"]],
  },
  {
    title: "Batches/s closed by", format: decimal, stacked: true,
    series: [["idle", "by_idle", "--line-1"], ["delay", "by_delay", "--line-2"],
      ["size", "by_size", "--line-3"]],
  },
];

export class Charts {
  constructor(box) {
    this.box = box;
    this.charts = [];
    this.entries = [];
    this.now = null;
    this.title = byId("charts-title");
    this.#build();
    // Canvas colours are read once, so another colour scheme means new charts.
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.#build());
    new ResizeObserver(() => this.charts.forEach((chart) => chart.resize())).observe(box);
  }

  /** The figures of the headline, which the legends repeat: two of one name must not differ. */
  show(now) {
    this.now = now;
    for (const chart of this.charts) chart.show(now);
  }

  draw(entries) {
    this.entries = entries;
    const minutes = widthSeconds(entries) / 60;
    setText(this.title, minutes === 1 ? "The last minute" : `The last ${minutes} minutes`);
    for (const chart of this.charts) chart.draw(entries);
  }

  #build() {
    for (const chart of this.charts) chart.plot.destroy();
    this.box.replaceChildren();
    this.charts = CHARTS.map((description) => new Chart(this.box, description));
    this.draw(this.entries);
    this.show(this.now);
  }
}

class Chart {
  constructor(box, description) {
    this.description = description;
    this.entries = [];
    this.now = null;
    this.place = element("div", { class: "plot", "aria-hidden": "true" });
    const caption = element("figcaption", {}, element("strong", { text: description.title }));
    this.outputs = description.series.map(([name, , colour]) => {
      const swatch = element("span", { class: "swatch" });
      swatch.style.background = css(colour);
      // An <output> is announced when it changes, four times a second here: off.
      const output = element("output", { "aria-live": "off" });
      caption.append(element("span", { class: "key" }, swatch, name, output));
      return output;
    });
    const figure = element("figure", { class: description.wide ? "chart double" : "chart" });
    figure.append(caption, this.place);
    box.append(figure);
    this.plot = new uPlot(this.#options(), this.#data(), this.place);
  }

  show(now) {
    this.now = now;
    this.#legend();
  }

  draw(entries) {
    this.entries = entries;
    this.plot.setData(this.#data());
    this.#legend();
  }

  resize() {
    this.plot.setSize({ width: this.place.clientWidth, height: this.place.clientHeight });
  }

  #legend() {
    const pointedAt = this.entries[this.plot?.cursor.idx];
    for (const [number, [, field]] of this.description.series.entries()) {
      const value = (pointedAt ?? this.now)?.[field];
      setText(this.outputs[number], this.description.format(value ?? NaN));
    }
  }

  #data() {
    const columns = this.description.series.map(([, field]) =>
      this.entries.map((entry) => entry[field] ?? null));
    if (this.description.stacked) {
      for (let lower = columns.length - 2; lower >= 0; lower--) {
        columns[lower] = columns[lower].map((value, at) =>
          value === null ? null : value + columns[lower + 1][at]);
      }
    }
    return [this.entries.map((entry) => entry.time), ...columns];
  }

  #options() {
    const { series, stacked, format } = this.description;
    const axis = {
      stroke: css("--muted"), font: "11px system-ui, sans-serif",
      grid: { stroke: css("--grid"), width: 1 }, ticks: { show: false },
    };
    return {
      width: this.place.clientWidth,
      height: this.place.clientHeight,
      padding: [10, 30, 0, 0], // room for half a time of day
      legend: { show: false },
      cursor: { y: false, drag: { x: false, y: false }, points: { show: false } },
      hooks: { setCursor: [() => this.#legend()] },
      scales: {
        x: { time: true, range: () => this.#window() },
        // From zero, and never so close that an idle engine looks busy.
        y: { range: (plot, low, high) => [0, Math.max(4, (high ?? 0) * 1.1)] },
      },
      axes: [
        {
          ...axis, size: 24, gap: 4, space: 64, incrs: [15, 30, 60, 120],
          values: (plot, times, axisAt, space, step) =>
            times.map((time) => clock(time).slice(0, step < 60 ? 8 : 5)),
        },
        { ...axis, size: 46, gap: 4, space: 30, values: (plot, each) => each.map(shorter) },
      ],
      series: [{}, ...series.map(([, , colour]) => ({
        stroke: css(colour), width: stacked ? 1 : 1.6, points: { show: false },
        fill: stacked ? css(colour) : undefined,
      }))],
    };
  }

  #window() {
    const newest = this.entries.at(-1)?.time ?? Math.floor(Date.now() / 1000);
    return [newest - widthSeconds(this.entries), newest];
  }
}

function widthSeconds(entries) {
  const known = entries.length ? entries.at(-1).time - entries[0].time : 0;
  return WIDTHS_SECONDS.find((width) => width >= known) ?? WINDOW_SECONDS;
}

/** 12,000 as 12k: the axis is narrow. */
function shorter(number) {
  return number >= 1000 ? `${decimal(number / 1000)}k` : decimal(number);
}

function css(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

export function startCharts() {
  return new Charts(byId("charts"));
}
