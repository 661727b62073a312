// Pages work without this file: every link and form is a plain one. It changes what is shown without loading the page.
"use strict";

let asked = 0; // requests so far: an answer that another request has overtaken is dropped
history.scrollRestoration = "manual"; // the browser would scroll before the answer is there; `top` in the state is ours

async function show(address, {push = true, only = "", focus = "", scroll = "keep"} = {}) {
  const mine = ++asked;
  const busy = setTimeout(() => wait(address), 200);
  let page, shown;
  try {
    const answer = await fetch(address, {headers: {Accept: "text/html"}});
    page = new DOMParser().parseFromString(await answer.text(), "text/html");
    shown = page.getElementById("main").dataset.address;
  } catch {
    if (mine === asked) sayNoAnswer(address);
    return;
  } finally {
    clearTimeout(busy);
  }
  if (mine !== asked) return;
  if (push) history.replaceState({top: scrolledTo()}, "");
  const focused = document.activeElement, selector = focus || selectorOf(focused);
  const text = focused && "selectionStart" in focused ? focused.selectionStart : null;
  const opened = [...document.querySelectorAll("details[id]")].map(one => [one.id, one.open]);
  const swapped = only ? [only, "#pick"] : ["header.top", "main", "footer"];
  for (const part of swapped) {
    const from = document.querySelector(part), to = page.querySelector(part);
    if (from && to) from.replaceWith(to);
  }
  document.title = page.title;
  document.documentElement.dataset.theme = page.documentElement.dataset.theme;
  for (const [id, open] of opened) document.getElementById(id)?.toggleAttribute("open", open);
  rest();
  remember(push, shown, typeof scroll === "number" ? scroll : scrollY);
  ready();
  const target = selector && document.querySelector(selector);
  if (target && !only) {
    target.focus({preventScroll: true});
    if (text !== null && target.value === focused.value && target.type === "search") target.setSelectionRange(text, text);
  } else if (!only && !document.activeElement.matches("main *")) {
    document.getElementById("main").focus({preventScroll: true});
  }
  if (scroll === "top") scrollTo(0, 0);
  else if (scroll === "near") target?.scrollIntoView({block: "nearest"});
  else if (scroll === "focus") target?.scrollIntoView({block: "start"});
  else if (typeof scroll === "number") scrollTo(0, scroll);
}

// Grey blocks of each view, from the top: what they stand for and how many there are.
const SHAPES = {
  allocation: {title: 1, card: 3, bar: 7, line: 4},
  prompts: {title: 1, field: 2, row: 10},
  whatif: {title: 1, panel: 1, chart: 2, bar: 5},
  map: {title: 1, chart: 2, line: 6},
  router: {title: 1, card: 3, chart: 3, line: 6},
  cost: {title: 1, bar: 2, line: 8},
  lineage: {title: 1, line: 8},
  try: {title: 1, panel: 1, bar: 5},
  opened: {field: 2, panel: 1, bar: 6, line: 4},
};

// After 200 ms without an answer. Another view gets blocks in its shape, and so does a prompt that is opened beside the
// list. Within a view what is there is dimmed: it has the shape of the answer, and can be read until that is there.
function wait(address) {
  rest();
  const main = document.getElementById("main"), old = main.querySelector(".view");
  const query = new URL(address, location.href).searchParams, view = query.get("view") ?? "allocation";
  main.setAttribute("aria-busy", "true");
  if (old.id !== `view-${view}`) {
    const blocks = placeholder(view);
    blocks.dataset.top = scrollY;
    main.prepend(blocks);
    scrollTo(0, 0);
  } else if (query.get("prompt") && !document.getElementById("view-opened")) {
    old.classList.add("with-prompt");
    old.append(placeholder("opened"));
  }
  if (!document.activeElement.checkVisibility()) main.focus({preventScroll: true}); // it was in what is hidden now
}

// What was there is back, or the answer has taken its place.
function rest() {
  const main = document.getElementById("main"), blocks = document.getElementById("placeholder");
  main.removeAttribute("aria-busy");
  blocks?.remove();
  if (!document.getElementById("view-opened")) main.querySelector(".view").classList.remove("with-prompt");
  if (blocks?.dataset.top) scrollTo(0, blocks.dataset.top);
}

// Where what is shown, or hidden behind blocks, was scrolled to.
function scrolledTo() {
  return Number(document.getElementById("placeholder")?.dataset.top ?? scrollY);
}

function placeholder(view) {
  const made = Object.assign(document.createElement("div"), {id: "placeholder", className: view});
  const words = document.getElementById(`to-${view}`)?.textContent;
  if (words) made.append(Object.assign(document.createElement("h1"), {className: "hidden", textContent: words}));
  for (const [kind, number] of Object.entries(SHAPES[view] ?? SHAPES.lineage)) {
    const blocks = Object.assign(document.createElement("div"), {className: `blocks of-${kind}`, ariaHidden: "true"});
    blocks.append(...Array.from({length: number}, () => document.createElement("i")));
    made.append(blocks);
  }
  return made;
}

function selectorOf(element) {
  if (!element || element === document.body) return "";
  if (element.id) return `#${CSS.escape(element.id)}`;
  const form = element.closest?.("form[id]");
  if (form && element.name) {
    const value = ["radio", "checkbox"].includes(element.type) ? `[value="${CSS.escape(element.value)}"]` : "";
    return `#${CSS.escape(form.id)} [name="${CSS.escape(element.name)}"]${value}`;
  }
  return "";
}

// What is shown stays: it may be all that can be seen for a while.
function sayNoAnswer(address) {
  document.getElementById("no-answer")?.remove();
  rest();
  const main = document.getElementById("main"), link = document.createElement("a"), said = document.createElement("div");
  Object.assign(link, {href: address, textContent: "Try again"});
  Object.assign(said, {id: "no-answer", className: "message error", role: "alert"});
  said.append("The server does not answer, or not with a page. ", link);
  main.prepend(said);
}

function remember(push, query, top) {
  history[push ? "pushState" : "replaceState"]({top}, "", query && query !== "?" ? query : location.pathname);
  // inside the Hub's page this one is a frame, whose address nobody sees: the Hub takes its query over
  if (parent !== window) parent.postMessage({queryString: location.search}, "https://huggingface.co");
}

function follow(link) {
  const address = new URL(link.getAttribute("href"), location.href); // a link in a picture has no href that is a text
  const view = address.searchParams.get("view"), now = new URLSearchParams(location.search).get("view");
  const focus = link.dataset.focus ?? "";
  show(address.href, {focus: focus || selectorOf(link), scroll: link.dataset.scroll ?? (view === now ? "keep" : "top")});
}

function submit(form, options) {
  const query = new URLSearchParams([...new FormData(form)].filter(([, value]) => typeof value === "string"));
  show(`?${query}`, options);
}

addEventListener("click", event => {
  const link = event.target.closest?.("a[href^='?']");
  if (!link || event.defaultPrevented || event.button || event.ctrlKey || event.metaKey || event.shiftKey || event.altKey) return;
  event.preventDefault();
  follow(link);
});

addEventListener("submit", event => {
  if (event.target.method !== "get") return;
  event.preventDefault();
  submit(event.target);
});

addEventListener("change", event => {
  const form = event.target.form;
  if (form?.dataset.auto !== undefined && event.target.type !== "range") submit(form);
});

let dragged = 0;
addEventListener("input", event => { // a slider that is dragged must stay the element that it is
  if (event.target.type !== "range") return;
  const form = event.target.form, output = form.querySelector(`output[for="${event.target.id}"]`);
  if (output) output.textContent = event.target.value;
  clearTimeout(dragged);
  dragged = setTimeout(() => submit(form, {push: false, only: form.dataset.live}), 120);
});

addEventListener("popstate", event => {
  show(location.href, {push: false, scroll: event.state?.top ?? 0});
});

addEventListener("scrollend", () => history.replaceState({top: scrolledTo()}, ""));

addEventListener("keydown", event => {
  if (event.target.closest("input, textarea, select") || event.ctrlKey || event.metaKey || event.altKey) return;
  const id = {j: "next-prompt", k: "previous-prompt", Escape: "close-prompt"}[event.key];
  const link = id && document.getElementById(id);
  if (link?.href) { event.preventDefault(); follow(link); }
});

// What the elements of a page need that has just been shown. Other files add to it.
const readied = [() => {
  for (const button of document.querySelectorAll("[data-copy]")) button.hidden = false;
  const views = document.querySelector("nav.views"), view = views.querySelector("[aria-current]");
  views.scrollLeft = view.offsetLeft - views.offsetLeft - (views.clientWidth - view.clientWidth) / 2;
}];
function ready() { for (const call of readied) call(); }

addEventListener("click", async event => {
  const button = event.target.closest?.("[data-copy]");
  if (!button) return;
  const said = document.getElementById("copied");
  try {
    await navigator.clipboard.writeText(location.href);
    said.textContent = "Copied";
  } catch { // a frame may not be allowed to write, nor to open a dialog
    const link = Object.assign(document.createElement("input"), {value: location.href, readOnly: true});
    link.setAttribute("aria-label", "Copy this link");
    said.replaceChildren(link);
    link.select();
  }
});

remember(false, document.getElementById("main").dataset.address, history.state?.top ?? 0);
ready();
if (history.state.top) scrollTo(0, history.state.top);
