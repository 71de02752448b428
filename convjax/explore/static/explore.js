// The page: images, tabs, messages.

import { ask, upload } from "./api.js";
import { make } from "./draw.js";
import { keep, state } from "./state.js";
import * as convolution from "./convolution.js";
import * as network from "./network.js";
import * as norm from "./norm.js";
import * as pooling from "./pooling.js";

const message = document.getElementById("message"), images = document.getElementById("images");
const tabs = [...document.querySelectorAll("[role=tab]")];

const tell = (text) => {
  message.textContent = text;
  message.hidden = !text;
};

let works = 0;
function busy(change) {
  works += change;
  document.body.classList.toggle("busy", works > 0);
  document.body.setAttribute("aria-busy", works > 0);
}

// Does something and tells what went wrong; what was there before stays.
async function report(work) {
  busy(1);
  try {
    await work();
    tell("");
  } catch (error) {
    tell(error.message);
  } finally {
    busy(-1);
  }
}

const panels = {};
const current = () => panels[state.tab];

function choose(tab, focus) {
  state.tab = tab.getAttribute("aria-controls");
  for (const each of tabs) {
    each.setAttribute("aria-selected", each === tab);
    each.tabIndex = each === tab ? 0 : -1;
    document.getElementById(each.getAttribute("aria-controls")).hidden = each !== tab;
  }
  if (focus) tab.focus();
  keep();
  current()?.refresh();
}

for (const [i, tab] of tabs.entries()) {
  tab.addEventListener("click", () => choose(tab));
  tab.addEventListener("keydown", ({ key }) => {
    const next = { ArrowRight: i + 1, ArrowLeft: i - 1 + tabs.length, Home: 0, End: tabs.length - 1 }[key];
    if (next !== undefined) choose(tabs[next % tabs.length], true);
  });
}

function add({ id, name }) {
  const radio = make("input", { type: "radio", name: "image", value: id });
  radio.addEventListener("change", () => {
    state.image = id;
    keep();
    current().refresh();
  });
  images.append(make("label", { title: name }, radio, make("img", { src: `images/${encodeURIComponent(id)}.png`, alt: "" }), name));
  return radio;
}

const select = (radio) => {
  radio.checked = true;
  state.image = radio.value;
};

async function begin() {
  const facts = await ask("start");
  const radios = facts.images.map(add);
  for (const each of state.uploads ?? []) radios.push(add(each));
  select(radios.find(({ value }) => value === state.image) ?? radios[0]);
  Object.assign(panels, {
    convolution: convolution.start(facts, report),
    pooling: pooling.start(facts, report),
    norm: norm.start(facts, report),
    network: network.start(facts, report),
  });
  document.getElementById("upload").addEventListener("change", async ({ target }) => {
    const [file] = target.files;
    if (!file) return;
    await report(async () => {
      if (file.size > facts.limits.bytes) throw new Error(`${file.name}: larger than ${facts.limits.bytes / 2 ** 20} MiB`);
      const found = { ...(await upload(file)), name: file.name };
      state.uploads = [...(state.uploads ?? []), found].slice(-facts.limits.uploads);
      select(add(found));
      keep();
      current().refresh();
    });
    target.value = ""; // the same file may be chosen again
  });
  document.getElementById("note").textContent = facts.note;
  choose(tabs.find((tab) => tab.getAttribute("aria-controls") === state.tab) ?? tabs[0]);
}

matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => current().draw());
report(begin);
