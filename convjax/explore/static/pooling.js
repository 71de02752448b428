// Pooling: the maximum or the mean of each window.

import { ask, decode } from "./api.js";
import { make, rangeOf, short } from "./draw.js";
import { bind, convolution, state } from "./state.js";
import { imageRange, numbers, sign, Stepper } from "./stepper.js";

export function start(_, report) {
  const root = document.getElementById("pooling"), own = state.pooling;
  const stepper = new Stepper(root.querySelector(".stepper"), explain);
  bind(root.querySelector("form"), "pooling", refresh);
  let kind = own.kind;

  async function refresh() {
    const { of, ...pooling } = own;
    await report(async () => {
      const answer = await ask("pooling", { image: state.image, of, convolution: convolution(), pooling });
      if (!answer) return;
      kind = pooling.kind;
      const range = of === "image" ? imageRange() : rangeOf(decode(answer.input).values);
      stepper.show(answer, { stride: pooling.stride, range: { input: range, output: range } });
    });
  }

  function explain(panel, [rows], view, [row, column]) {
    const result = short(view.output.at(row, column), 4), every = rows.flat();
    const counted = kind === "average" ? every : every.filter(({ inside }) => inside);
    const largest = kind === "max" && counted.reduce((best, tap) => (tap.value > best.value ? tap : best));
    const table = numbers("window", "window", rows, {
      range: view.range.input,
      mark: (tap) => (tap === largest ? "chosen" : tap.inside ? "" : "outside"),
    });
    const words = kind === "max" ? "maximum" : `sum / ${counted.length}`;
    const text = make("p", { className: "result" }, `${words} = `, make("b", { textContent: result }));
    const hint = make("p", { className: "hint", textContent: `Output row ${row}, column ${column}. ${lost(kind, every.length)}` });
    panel.replaceChildren(make("div", { className: "terms" }, table, sign("→"), text), hint);
    return `row ${row}, column ${column}: ${words} ${result}`;
  }

  return { refresh, draw: () => stepper.draw() };
}

const lost = (kind, count) => kind === "max"
  ? `One of ${count} values is kept, and where it was is forgotten; the gradient goes back to that pixel alone.`
  : "All values count the same; the gradient is spread evenly over them.";
