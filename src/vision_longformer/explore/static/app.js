// The page: what is chosen in the panel, what is asked of the server, and what it says.

import { Viewer } from "./viewer.js";
import { Painting } from "./painting.js";
import { setTheme, showHint, stored } from "./remembered.js";
import { showBar } from "./scale_bar.js";
import { ask, say, sentence } from "./talk.js";

const element = (id) => document.getElementById(id);
const page = { state: null, image: 0, tab: "similar", label: 0, erasing: false, moving: false, sign: "new", polling: false, hidden: new Set(), pending: [] };

// Requests that change something go one after the other, so that the page ends with the latest state.
let queue = Promise.resolve();
function change(action, body = {}) {
  const about = { image: page.image, ...body }; // which is on the page now, not when its turn has come
  queue = queue.then(async () => {
    const state = await ask(action, about);
    if (state) take(state);
    else await refresh();
    return state;
  });
  return queue;
}

// What does not change anything, of the state that all changes before led to.
async function inTurn(action, body = {}) {
  const about = { image: page.image, ...body };
  await queue;
  return ask(action, about);
}

function changeStrokes(action, body) {
  element("quality").replaceChildren(); // it was of other strokes
  return change(action, body);
}

// A stroke is on the page at once, and stays there while the answers to strokes before it come in.
async function paint(stroke) {
  const own = { image: page.image, stroke };
  page.pending.push(own);
  showOverlay();
  await changeStrokes("paint", { stroke });
  page.pending = page.pending.filter((each) => each !== own);
  showOverlay();
}

async function refresh() {
  try {
    const answer = await fetch("api/state");
    if (answer.ok) take(await answer.json());
  } catch {
    say("The server does not answer: is the command still running?");
  }
}

const viewer = new Viewer({ onProblem: (problem) => say(sentence(problem)), onStale: refresh });
const painting = new Painting(viewer, {
  brush: () => ({ label: page.erasing ? null : page.label, radius: Number(element("brush").value) }),
  colourOf: (number) => page.state?.classes[number]?.colour ?? "#fff",
  onStroke: paint,
});

function take(state) {
  if (page.state && state.revision < page.state.revision) return;
  page.state = state;
  const image = state.images[page.image];
  element("encoding").hidden = image.ready;
  element("encoding-share").value = image.share;
  element("encoding-share").hidden = Boolean(image.problem);
  element("encoding-text").textContent = image.problem
    ? sentence(image.problem)
    : `Encoding the image: ${Math.round(100 * image.share)}%. You can look around until it is done.`;
  showSimilar(state, image);
  showClasses(state, image);
  showTakeAway(state, image);
  showOverlay();
  const busy = state.images.some((each) => !each.ready && !each.problem) || state.job?.state === "running";
  if (busy && !page.polling) {
    page.polling = true;
    setTimeout(() => {
      page.polling = false;
      refresh();
    }, 400);
  }
}

function showOverlay() {
  const { state } = page;
  const asked = state.similar?.image === page.image ? state.similar : null;
  const segmenting = page.tab !== "similar";
  const kind = segmenting ? (state.head ? (element("doubt").checked ? "doubt" : "classes") : null) : asked ? "similar" : null;
  viewer.show(state.images[page.image].ready ? kind : null, state.revision, kind === "classes" ? [...page.hidden].sort() : []);
  element("doubt-legend").hidden = kind !== "doubt";
  const marks = asked && !segmenting
    ? [...asked.points.map(([x, y]) => ({ x, y, sign: 1 })), ...asked.against.map(([x, y]) => ({ x, y, sign: -1 }))]
    : [];
  const pending = page.pending.filter((each) => each.image === page.image).map((each) => each.stroke);
  painting.show(page.tab === "segment" ? [...state.images[page.image].strokes, ...pending] : [], marks);
}

function showSimilar(state, image) {
  const select = element("stage");
  const stages = image.stages ?? [];
  if (select.options.length !== stages.length + 1) {
    select.replaceChildren(new Option("all together", ""), ...stages.map((stage) => new Option(`stage ${stage}`, stage)));
  }
  const asked = state.similar?.image === page.image ? state.similar : null;
  element("forget").disabled = !asked;
  if (asked) element("as-regions").checked = asked.threshold !== null;
  element("similar-legend").hidden = !asked || asked.threshold !== null;
  for (const sign of ["add", "against"]) element(`sign-${sign}`).disabled = !asked;
  if (!asked && page.sign !== "new") chooseSign("new");
  element("count").textContent = !asked || asked.threshold === null
    ? ""
    : asked.count === null
      ? "This image is too large to count its regions."
      : `${asked.count.toLocaleString("en")} ${asked.count === 1 ? "region" : "regions"}`;
}

function showClasses(state, image) {
  const list = element("classes");
  if (page.label >= state.classes.length) page.label = 0;
  while (list.children.length < state.classes.length) list.append(classRow(list.children.length));
  state.classes.forEach((about, number) => {
    const [swatch, name, strokes, eye] = list.children[number].children;
    const shown = !page.hidden.has(number);
    eye.setAttribute("aria-pressed", String(shown));
    eye.title = `${shown ? "Hide" : "Show"} where ${about.name} is`;
    eye.setAttribute("aria-label", eye.title);
    swatch.style.background = about.colour;
    swatch.setAttribute("aria-checked", String(!page.erasing && page.label === number));
    if (document.activeElement !== name) name.value = about.name;
    strokes.textContent = about.strokes;
    strokes.title = `${about.strokes} ${about.strokes === 1 ? "stroke" : "strokes"}`;
  });
  element("undo").disabled = !image.strokes.length;
  element("redo").disabled = !image.undone;
  for (const id of ["uncertain", "measure", "apply", "save-head"]) element(id).disabled = !state.head || !image.ready;
  element("head").textContent = state.head ? "" : sentence(state.why_no_head);
}

function classRow(number) {
  const row = document.createElement("li");
  row.setAttribute("role", "none");
  row.innerHTML =
    '<button class="swatch" role="radio"></button><input type="text" maxlength="100"><span class="strokes"></span>' +
    '<button class="eye"><svg viewBox="0 0 24 24" aria-hidden="true"><path d="M2 12q10-13 20 0q-10 13-20 0z"/>' +
    '<circle class="open" cx="12" cy="12" r="3.2"/><path class="closed" d="M4 20L20 4"/></svg></button>';
  const [swatch, name, , eye] = row.children;
  eye.addEventListener("click", () => {
    if (!page.hidden.delete(number)) page.hidden.add(number);
    showClasses(page.state, page.state.images[page.image]);
    showOverlay();
  });
  swatch.textContent = number + 1;
  swatch.title = `Paint this class (${number + 1})`;
  swatch.setAttribute("aria-label", `Paint class ${number + 1}`);
  name.setAttribute("aria-label", `Name of class ${number + 1}`);
  swatch.addEventListener("click", () => chooseClass(number));
  name.addEventListener("change", () => {
    const names = page.state.classes.map((about) => about.name);
    names[number] = name.value;
    change("classes", { names });
  });
  return row;
}

function showTakeAway(state, image) {
  element("shares").replaceChildren(...(image.shares ? [table(image.shares)] : []));
  const formats = element("formats");
  if (!formats.children.length) {
    for (const [format, words] of Object.entries(state.formats)) {
      const button = document.createElement("button");
      button.textContent = words;
      button.dataset.format = format;
      button.addEventListener("click", () => change("export", { format }));
      formats.append(button);
    }
  }
  const running = state.job?.state === "running";
  for (const button of formats.children) button.disabled = running || !state.head || !image.ready;
  if (running) for (const id of ["apply", "save-head"]) element(id).disabled = true;
  element("job").hidden = !state.job;
  if (!state.job) return;
  element("job-share").hidden = !running;
  element("job-share").value = state.job.share;
  const text = element("job-text");
  text.textContent = running ? "Working…" : sentence(state.job.message);
  if (state.job.found?.file != null) {
    const link = document.createElement("a");
    link.href = `files/${state.job.found.file}`;
    link.textContent = "Download";
    text.append(" ", link);
  }
}

function table(shares) {
  const found = document.createElement("table");
  for (const [name, share] of Object.entries(shares)) {
    const row = found.insertRow();
    row.insertCell().textContent = name;
    row.insertCell().textContent = `${(100 * share).toFixed(1)}%`;
  }
  return found;
}

async function similarAt(x, y, { shift = false, alt = false } = {}) {
  const { width, height, ready } = page.state.images[page.image];
  if (!ready || x < 0 || y < 0 || x >= width || y >= height) return;
  const asked = page.state.similar?.image === page.image ? page.state.similar : null;
  const sign = !asked ? "new" : alt ? "against" : shift ? "add" : page.sign;
  const points = sign === "new" ? [] : [...asked.points];
  const against = sign === "new" ? [] : [...asked.against];
  (sign === "against" ? against : points).push([x, y]);
  await change("similar", { points, against, stage: stage() });
}

const stage = () => (element("stage").value === "" ? null : Number(element("stage").value));

function chooseSign(sign) {
  page.sign = sign;
  for (const each of ["new", "add", "against"]) element(`sign-${each}`).setAttribute("aria-checked", String(each === sign));
}

function chooseClass(number) {
  page.label = number;
  page.erasing = false;
  chooseTool();
}

function chooseTool() {
  element("eraser").setAttribute("aria-pressed", String(page.erasing));
  element("move").setAttribute("aria-pressed", String(page.moving));
  painting.activate(page.tab === "segment" && !page.moving);
  if (page.state) showClasses(page.state, page.state.images[page.image]);
}

function chooseTab(tab) {
  page.tab = tab;
  for (const each of ["similar", "segment", "take"]) {
    element(each).hidden = each !== tab;
    element(`tab-${each}`).setAttribute("aria-selected", String(each === tab));
  }
  chooseTool();
  if (page.state) showOverlay();
}

async function openImage(number) {
  page.image = number;
  const { name, width, height } = page.state.images[number];
  element("name").title = `${name}, ${width} × ${height} pixels`;
  await viewer.open(number, page.state.images[number], page.state.tile);
  take(page.state);
}

async function nextUncertain() {
  const found = await inTurn("uncertain", { view: viewer.bounds() });
  if (!found) return;
  if (!found.place) return say("No uncertain place is left in this view.");
  viewer.goTo(...found.place);
  element("cross").hidden = false;
  clearTimeout(nextUncertain.timer);
  nextUncertain.timer = setTimeout(() => (element("cross").hidden = true), 4000);
}

async function measure() {
  const found = await inTurn("quality");
  if (!found) return;
  const { accuracy, strokes, iou } = found.quality;
  const words = document.createElement("p");
  words.textContent = `${(100 * accuracy).toFixed(0)}% right on ${strokes} strokes, each held out in turn. Intersection over union:`;
  element("quality").replaceChildren(words, table(iou));
}

function listen() {
  const on = (id, event, handler) => element(id).addEventListener(event, handler);
  for (const tab of ["similar", "segment", "take"]) on(`tab-${tab}`, "click", () => chooseTab(tab));
  for (const sign of ["new", "add", "against"]) on(`sign-${sign}`, "click", () => chooseSign(sign));
  on("stage", "change", () => {
    const asked = page.state.similar;
    if (asked) change("similar", { points: asked.points, against: asked.against, stage: stage() });
  });
  const asked = () => (element("as-regions").checked ? Number(element("threshold").value) : null);
  let waiting = false; // of a slider that is dragged, only the latest place is asked for
  const threshold = async () => {
    element("threshold-value").textContent = Number(element("threshold").value).toFixed(2);
    if (!page.state.similar || waiting) return;
    waiting = true;
    await queue;
    waiting = false;
    change("threshold", { threshold: asked() });
  };
  on("as-regions", "change", threshold);
  on("threshold", "input", () => {
    element("as-regions").checked = true;
    threshold();
  });
  on("forget", "click", () => change("forget"));
  on("eraser", "click", () => { page.erasing = !page.erasing; chooseTool(); });
  on("move", "click", () => { page.moving = !page.moving; chooseTool(); });
  on("brush", "input", () => (element("brush-value").textContent = element("brush").value));
  on("undo", "click", () => changeStrokes("undo"));
  on("redo", "click", () => changeStrokes("redo"));
  on("uncertain", "click", nextUncertain);
  on("measure", "click", measure);
  on("doubt", "change", showOverlay);
  for (const event of ["update-viewport", "open", "resize"]) {
    viewer.osd.addHandler(event, () => showBar(viewer, page.state.images[page.image].micrometres));
  }
  on("add-class", "click", () => {
    const names = page.state.classes.map((about) => about.name);
    let number = names.length + 1;
    while (names.includes(`class ${number}`)) number += 1;
    change("classes", { names: [...names, `class ${number}`] });
  });
  on("apply", "click", () => change("apply"));
  on("save-head", "click", () => change("head"));
  on("opacity", "input", () => viewer.setOpacity(Number(element("opacity").value)));
  on("images", "change", () => openImage(Number(element("images").value)));
  on("theme", "click", () => setTheme(document.documentElement.dataset.theme === "dark" ? "light" : "dark"));
  on("help", "click", () => showHint(element("hint").hidden));
  on("got", "click", () => showHint(false));
  on("in", "click", () => viewer.zoomBy(1.5));
  on("out", "click", () => viewer.zoomBy(1 / 1.5));
  on("home", "click", () => viewer.osd.viewport.goHome());
  viewer.osd.addHandler("canvas-click", (event) => {
    if (!event.quick || page.tab !== "similar") return;
    const { shiftKey: shift, altKey: alt } = event.originalEvent;
    similarAt(...viewer.toImage(event.position.x, event.position.y), { shift, alt });
  });
  viewer.osd.addHandler("canvas-key", (event) => { // its own keys for turning and flipping are ours
    if (!["ArrowUp", "ArrowDown", "ArrowLeft", "ArrowRight", "+", "-", "=", "0"].includes(event.originalEvent.key)) {
      event.preventDefaultAction = true;
    }
  });
  document.addEventListener("keydown", key);
  document.addEventListener("keyup", (event) => {
    if (event.key === " " && page.held) { page.held = page.moving = false; chooseTool(); }
  });
}

function key(event) {
  const typing = event.target.matches("input[type=text], select");
  if (typing || event.ctrlKey || event.metaKey || event.altKey) return;
  const press = (id) => element(id).disabled || element(id).click();
  const brush = (step) => {
    element("brush").value = Number(element("brush").value) + step;
    element("brush-value").textContent = element("brush").value;
  };
  // undoing and redoing wait their turn, whatever the buttons show: the answer to the stroke before may be on its way
  const keys = {
    s: () => chooseTab("similar"), p: () => chooseTab("segment"), t: () => chooseTab("take"),
    e: () => press("eraser"), z: () => changeStrokes("undo"), Z: () => changeStrokes("redo"), n: () => press("uncertain"),
    "[": () => brush(-2), "]": () => brush(2), "?": () => press("help"), Escape: () => showHint(false),
  };
  if (/^[1-9]$/.test(event.key) && Number(event.key) <= page.state.classes.length) {
    chooseTab("segment");
    chooseClass(Number(event.key) - 1);
  } else if (event.key === " " && page.tab === "segment" && !event.target.matches("button")) {
    event.preventDefault();
    if (!page.moving) { page.held = page.moving = true; chooseTool(); }
  } else if (event.key === "Enter" && !event.target.matches("button, input")) {
    atCentre();
  } else if (keys[event.key]) keys[event.key]();
}

// What a click does, at the middle of the view, for those who have a keyboard alone.
function atCentre() {
  const [x, y] = viewer.centre();
  element("cross").hidden = false;
  if (page.tab === "similar") similarAt(x, y);
  if (page.tab === "segment") {
    const radius = Number(element("brush").value) / viewer.scale();
    paint({ class: page.erasing ? null : page.label, points: [[x, y]], radius });
  }
}

async function start() {
  setTheme(stored("vil-theme") ?? (matchMedia("(prefers-color-scheme: light)").matches ? "light" : "dark"));
  showHint(stored("vil-hint") !== "seen");
  listen();
  const answer = await fetch("api/state");
  page.state = await answer.json();
  if (page.state.classes[0].name === "background") page.hidden.add(0); // the image itself is seen there
  element("images").hidden = page.state.images.length === 1;
  element("name").hidden = !element("images").hidden;
  element("name").textContent = page.state.images[0].name;
  element("images").replaceChildren(...page.state.images.map((image, number) => new Option(image.name, number)));
  document.title = page.state.images.map((image) => image.name).join(", ");
  chooseTab("similar");
  await openImage(0);
  document.body.dataset.ready = "true";
}

start();
