// Pages work without this file: every link and form is a plain one. It changes what is shown without loading the page.
"use strict";

let asked = 0; // requests so far: an answer that another request has overtaken is dropped
const places = new Map(); // key of a step of the history -> how far it was scrolled

async function show(address, {push = true, only = "", focus = "", scroll = "keep"} = {}) {
  const mine = ++asked;
  const main = document.getElementById("main");
  const busy = setTimeout(() => main.setAttribute("aria-busy", "true"), 200);
  let page;
  try {
    const answer = await fetch(address, {headers: {Accept: "text/html"}});
    if (!answer.ok) throw new Error(answer.statusText);
    page = new DOMParser().parseFromString(await answer.text(), "text/html");
  } catch (error) {
    if (mine === asked) location.assign(address); // the browser says what is wrong
    return;
  } finally {
    clearTimeout(busy);
  }
  if (mine !== asked) return;
  const focused = document.activeElement, selector = focus || selectorOf(focused);
  const text = focused && "selectionStart" in focused ? focused.selectionStart : null;
  const opened = [...document.querySelectorAll("details[id]")].map(one => [one.id, one.open]);
  const swapped = only ? [only] : ["header.top", "main", "footer"];
  for (const part of swapped) {
    const from = document.querySelector(part), to = page.querySelector(part);
    if (from && to) from.replaceWith(to);
  }
  document.title = page.title;
  document.documentElement.dataset.theme = page.documentElement.dataset.theme;
  for (const [id, open] of opened) document.getElementById(id)?.toggleAttribute("open", open);
  document.getElementById("main").removeAttribute("aria-busy");
  remember(push, page.getElementById("main").dataset.address);
  ready();
  const target = selector && document.querySelector(selector);
  if (target && !only) {
    target.focus({preventScroll: true});
    if (text !== null && target.value === focused.value && target.type === "search") target.setSelectionRange(text, text);
  } else if (!only && !document.activeElement.matches("main *")) {
    document.getElementById("main").focus({preventScroll: true});
  }
  if (scroll === "top") scrollTo(0, 0);
  else if (scroll === "focus") target?.scrollIntoView({block: "start"});
  else if (typeof scroll === "number") scrollTo(0, scroll);
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

function remember(push, query) {
  const address = query && query !== "?" ? query : location.pathname;
  places.set(history.state?.key, scrollY);
  const state = {key: push ? `${Date.now()}-${asked}` : history.state?.key};
  history[push ? "pushState" : "replaceState"](state, "", address);
  // inside the Hub's page this one is a frame, whose address nobody sees: the Hub takes its query over
  if (parent !== window) parent.postMessage({queryString: location.search}, "https://huggingface.co");
}

function follow(link) {
  const view = new URL(link.href).searchParams.get("view"), now = new URLSearchParams(location.search).get("view");
  const focus = link.dataset.focus ?? "";
  show(link.href, {focus: focus || selectorOf(link), scroll: link.dataset.scroll ?? (view === now ? "keep" : "top")});
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
  show(location.href, {push: false, scroll: places.get(event.state?.key) ?? 0});
});

addEventListener("keydown", event => {
  if (event.target.closest("input, textarea, select") || event.ctrlKey || event.metaKey || event.altKey) return;
  const id = {j: "next-prompt", k: "previous-prompt", Escape: "close-prompt"}[event.key];
  const link = id && document.getElementById(id);
  if (link?.href) { event.preventDefault(); follow(link); }
});

// What the elements of a page need that has just been shown. Other files add to it.
const readied = [() => {
  for (const button of document.querySelectorAll("[data-copy]")) button.hidden = false;
}];
function ready() { for (const call of readied) call(); }

addEventListener("click", async event => {
  const button = event.target.closest?.("[data-copy]");
  if (!button) return;
  const said = document.getElementById("copied");
  try {
    await navigator.clipboard.writeText(location.href);
    said.textContent = "The link is copied.";
  } catch { // a frame may not be allowed to write
    prompt("Copy this link", location.href);
  }
});

remember(false, document.getElementById("main").dataset.address);
ready();
