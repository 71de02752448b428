// Batch norm: the histogram of the activations before and after.

import { ask, decode } from "./api.js";
import { make, short } from "./draw.js";
import { bind, convolution, state } from "./state.js";

const BINS = 48, WIDTH = 420, HEIGHT = 170;

export function start(_, report) {
  const form = document.querySelector("#norm form"), own = state.norm;
  bind(form, "norm", refresh);

  async function refresh() {
    const { mode, ...normalisation } = own;
    const train = mode === "training";
    form.elements.steps.disabled = train;
    await report(async () => {
      const answer = await ask("normalisation", { image: state.image, convolution: convolution(), normalisation: { ...normalisation, train } });
      if (!answer) return;
      const before = decode(answer.input).values, after = decode(answer.output).values;
      histogram("before", "Before", before);
      histogram("after", "After", after);
      document.getElementById("norm-formula").textContent =
        `y = γ (x − mean) / √(variance + 0.00001) + β, with ${train ? "the batch’s" : `the running`} mean ${short(answer.mean, 4)} and variance ${short(answer.variance, 4)}` +
        (train ? "." : `, as ${own.steps} training steps on this batch leave them (they start at 0 and 1, and keep 0.9 of themselves at each step).`);
    });
  }

  return { refresh, draw() {} };
}

function histogram(id, title, values) {
  const { mean, deviation, low, high, negative } = moments(values);
  const counts = new Array(BINS).fill(0), width = (high - low) / BINS || 1;
  for (const value of values) counts[Math.min(Math.floor((value - low) / width), BINS - 1)]++;
  const tallest = Math.max(...counts), x = (value) => ((value - low) / (width * BINS)) * WIDTH;
  const bars = counts.map((count, i) => {
    const height = (count / tallest) * (HEIGHT - 30);
    const bar = svg("rect", { x: x(low + i * width) + 0.5, y: HEIGHT - 20 - height, width: WIDTH / BINS - 1, height, class: low + (i + 0.5) * width > 0 ? "bar above" : "bar" });
    return bar;
  });
  const axis = svg("line", { x1: 0, x2: WIDTH, y1: HEIGHT - 20, y2: HEIGHT - 20, class: "axis" });
  const middle = svg("line", { x1: x(mean), x2: x(mean), y1: 0, y2: HEIGHT - 20, class: "mean" });
  const labels = [[low, "start"], [high, "end"]].map(([value, anchor]) => text(x(value), anchor, short(value)));
  const picture = svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": `${title}: histogram from ${short(low)} to ${short(high)}` }, ...bars, axis, middle, ...labels);
  const caption = make("figcaption", {}, make("b", { textContent: `${title}: ` }), "mean ", make("span", { className: "mean-value", textContent: short(mean, 3) }), ", deviation ", make("span", { className: "deviation-value", textContent: short(deviation, 3) }), `; ${short(100 * negative, 0)} % below zero, which a ReLU sets to zero`);
  document.getElementById(id).replaceChildren(caption, picture);
}

function moments(values) {
  let sum = 0, low = Infinity, high = -Infinity, negative = 0;
  for (const value of values) {
    sum += value;
    low = Math.min(low, value);
    high = Math.max(high, value);
    negative += value < 0;
  }
  const mean = sum / values.length;
  let squares = 0;
  for (const value of values) squares += (value - mean) ** 2;
  return { mean, deviation: Math.sqrt(squares / values.length), low, high, negative: negative / values.length };
}

function svg(tag, attributes, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

const text = (x, anchor, content) => svg("text", { x, y: HEIGHT - 5, "text-anchor": anchor }, content);
