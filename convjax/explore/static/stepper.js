// A window that is moved over an image: input, output, and what is computed for the output pixel that is pointed at.

import { decode } from "./api.js";
import { colour, legend, make, outline, paint, say, shades, short } from "./draw.js";

const LARGEST = 44;
const STEPS = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };

export class Stepper {
  // `explain(panel, place)` shows the arithmetic for an output pixel and returns it in words.
  constructor(root, explain) {
    this.explain = explain;
    this.place = [0, 0];
    this.input = make("canvas", { className: "input" });
    this.input.setAttribute("role", "img");
    this.output = make("canvas", { className: "output", tabIndex: 0 });
    this.output.setAttribute("role", "application");
    this.output.setAttribute("aria-roledescription", "image to step through");
    this.captions = [make("figcaption"), make("figcaption")];
    this.legends = [make("div"), make("div")];
    this.formula = make("p", { className: "formula" });
    this.panel = make("div", { className: "arithmetic" });
    const figures = [this.input, this.output].map((canvas, i) => make("figure", {}, this.captions[i], canvas, this.legends[i]));
    this.pictures = make("div", { className: "pictures" }, ...figures);
    root.append(this.pictures, this.panel, this.formula);
    for (const kind of ["pointermove", "pointerdown"]) this.output.addEventListener(kind, (event) => this.point(event));
    this.output.addEventListener("keydown", (event) => this.key(event));
    new ResizeObserver(([{ contentRect: { width } }]) => {
      if (width === this.width) return; // the height changes with what is drawn
      this.width = width;
      requestAnimationFrame(() => this.draw());
    }).observe(this.pictures);
  }

  // Takes an answer of the server with the geometry that was asked for.
  show(answer, { stride, dilation = 1, range, kernel }) {
    const input = decode(answer.input), output = decode(answer.output);
    const same = this.view?.output.height === output.height && this.view.output.width === output.width;
    this.view = { input, output, window: answer.window, pads: answer.pads, stride, dilation, range, kernel };
    if (!same) this.place = [output.height >> 1, output.width >> 1];
    this.captions[0].replaceChildren(make("b", { textContent: "Input " }), size(input));
    this.captions[1].replaceChildren(make("b", { textContent: "Output " }), size(output));
    this.legends[0].replaceChildren(legend(range.input));
    this.legends[1].replaceChildren(legend(range.output));
    this.input.setAttribute("aria-label", `Input, ${size(input)}, with the window`);
    this.output.setAttribute("aria-label", `Output, ${size(output)}. Arrow keys move the window.`);
    this.formula.replaceChildren(...this.sizes());
    this.draw();
  }

  sizes() {
    const { input, output, window, pads, stride, dilation } = this.view;
    const axis = (name, length, k, [low, high], result) => [
      `${name} = ⌊(${length} + ${low} + ${high} − ${dilation}·(${k} − 1) − 1) / ${stride}⌋ + 1 = `, make("b", { textContent: result }),
    ];
    return [
      "⌊(size + padding before + padding after − dilation·(window − 1) − 1) / stride⌋ + 1", make("br"),
      ...axis("Output height", input.height, window[0], pads[0], output.height), "; ",
      ...axis("width", input.width, window[1], pads[1], output.width),
    ];
  }

  draw() {
    if (!this.view || !this.pictures.offsetParent) return;
    const { input, output, pads, window: [height, width], stride, dilation, range } = this.view;
    const columns = Math.max(input.width + pads[1][0] + pads[1][1], output.width);
    const rows = Math.max(input.height + pads[0][0] + pads[0][1], output.height);
    const room = this.pictures.firstChild.clientWidth;
    const cell = Math.min(room / columns, Math.max(innerHeight * 0.4, 200) / rows, LARGEST);
    const [row, column] = this.place;
    const before = paint(this.input, input, range.input, cell, { pads });
    for (let u = 0; u < height && dilation > 1; u++) {
      for (let v = 0; v < width; v++) {
        before.fillStyle = "rgb(224 83 31 / .55)";
        before.fillRect(column * stride + v * dilation, row * stride + u * dilation, 1, 1);
      }
    }
    const span = [(height - 1) * dilation + 1, (width - 1) * dilation + 1];
    outline(before, column * stride, row * stride, span[1], span[0]);
    outline(paint(this.output, output, range.output, cell), column, row, 1, 1);
    this.output.dataset.row = row;
    this.output.dataset.column = column;
    this.words = this.explain(this.panel, this.taps(), this.view, this.place);
  }

  // The values under the window by channel: [{value, inside}] in rows.
  taps() {
    const { input, pads, window: [height, width], stride, dilation } = this.view;
    const [row, column] = this.place;
    return Array.from({ length: input.channels }, (_, channel) =>
      Array.from({ length: height }, (_, u) =>
        Array.from({ length: width }, (_, v) => {
          const y = row * stride + u * dilation - pads[0][0], x = column * stride + v * dilation - pads[1][0];
          const inside = y >= 0 && y < input.height && x >= 0 && x < input.width;
          return { value: inside ? input.at(y, x, channel) : 0, inside };
        })));
  }

  move(row, column) {
    const { height, width } = this.view.output;
    const place = [Math.min(Math.max(row, 0), height - 1), Math.min(Math.max(column, 0), width - 1)];
    if (place[0] === this.place[0] && place[1] === this.place[1]) return;
    this.place = place;
    this.draw();
  }

  point(event) {
    if (!this.view) return;
    const box = this.output.getBoundingClientRect(), { height, width } = this.view.output;
    this.move(Math.floor(((event.clientY - box.top) / box.height) * height), Math.floor(((event.clientX - box.left) / box.width) * width));
  }

  key(event) {
    const { height, width } = this.view?.output ?? {};
    const [row, column] = this.place;
    const step = STEPS[event.key];
    if (!width || event.ctrlKey || event.metaKey || event.altKey) return;
    if (step) this.move(row + step[0] * (event.shiftKey ? 8 : 1), column + step[1] * (event.shiftKey ? 8 : 1));
    else if (event.key === "Home") this.move(row, 0);
    else if (event.key === "End") this.move(row, width - 1);
    else return;
    event.preventDefault();
    say(this.words);
  }
}

const size = ({ height, width, channels }) => `${height} × ${width}${channels > 1 ? ` × ${channels}` : ""}`;

// A table of numbers, each tinted by its size, or as in the picture; `mark(tap)` names a cell's class.
export function numbers(caption, kind, rows, { mark = outside, range } = {}) {
  const largest = Math.max(...rows.flat().map(({ value }) => Math.abs(value))) || 1;
  const table = make("table", { className: `numbers ${kind} ${rows.length > 4 ? "large" : ""}` }, make("caption", { textContent: caption }));
  for (const row of rows) {
    table.insertRow().append(...row.map((tap) => {
      const cell = make("td", { className: mark(tap), textContent: short(tap.value) });
      if (range && tap.inside) {
        const rgb = colour(range, tap.value);
        cell.style.background = `rgb(${rgb.join(" ")})`;
        cell.style.color = rgb[0] * 0.3 + rgb[1] * 0.59 + rgb[2] * 0.11 > 128 ? "#000" : "#fff";
      } else {
        cell.style.setProperty("--share", Math.abs(tap.value) / largest);
        cell.style.setProperty("--tint", `var(--${tap.value < 0 ? "negative" : "positive"})`);
      }
      return cell;
    }));
  }
  return table;
}

const outside = (tap) => (tap.inside === false ? "outside" : "");
export const sign = (text) => make("span", { className: "sign", textContent: text });
export const imageRange = () => shades(1);
