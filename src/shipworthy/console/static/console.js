// Keeps the first page of the list fresh. The server renders and escapes; this only lays rows in their places.
"use strict";

const EVERY_MS = 2000;
const AFTER_FAILURE_MS = 10000;
const rows = document.getElementById("rows");
const button = document.getElementById("live");
const news = document.getElementById("news");
let etag = "";
let timer = 0;

function say(state, word) {
  button.dataset.state = state;
  button.querySelector(".word").textContent = word;
}

// Rows that are unchanged stay the very same nodes: focus, selection and hover survive.
function lay(html) {
  const template = document.createElement("template");
  template.innerHTML = html;
  const known = new Map([...rows.children].map((row) => [row.dataset.id, row]));
  const hadRows = [...known.keys()].some(Boolean);
  const laid = [...template.content.children].map((row) => {
    const old = known.get(row.dataset.id);
    if (old && old.innerHTML === row.innerHTML) return old;
    if (hadRows && row.dataset.id && !old) row.classList.add("fresh");
    return row;
  });
  const fresh = laid.filter((row) => row.classList.contains("fresh") && !row.isConnected).length;
  const focused = document.activeElement.closest("#rows tr")?.dataset.id;
  laid.forEach((row, place) => {
    if (rows.children[place] !== row) rows.insertBefore(row, rows.children[place] || null);
  });
  while (rows.children.length > laid.length) rows.lastElementChild.remove();
  const again = focused && laid.find((row) => row.dataset.id === focused);
  if (again) again.querySelector("a").focus({ preventScroll: true });
  if (fresh) news.textContent = fresh === 1 ? "1 new exchange" : `${fresh} new exchanges`;
}

async function refresh() {
  let wait = EVERY_MS;
  try {
    const answer = await fetch(rows.dataset.live, { headers: etag ? { "if-none-match": etag } : {}, cache: "no-store" });
    if (answer.status === 401) return location.assign("/console/login");
    if (answer.status === 200) {
      etag = answer.headers.get("etag") || "";
      lay(await answer.text());
    } else if (answer.status !== 304) throw new Error(String(answer.status));
    say("on", "Live");
  } catch {
    wait = AFTER_FAILURE_MS;
    say("lost", "Trying again");
  }
  plan(wait);
}

function plan(wait) {
  clearTimeout(timer);
  if (button.getAttribute("aria-pressed") === "true" && !document.hidden) timer = setTimeout(refresh, wait);
}

function step(by) {
  const links = [...rows.querySelectorAll(".when a")];
  const at = links.indexOf(document.activeElement);
  const next = links[at < 0 ? 0 : Math.min(Math.max(at + by, 0), links.length - 1)];
  if (next) next.focus();
}

document.addEventListener("keydown", (event) => {
  if (event.target.closest("input, select") || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "j") step(1);
  if (event.key === "k") step(-1);
});

if (rows.dataset.live && button) {
  button.hidden = false;
  say("on", "Live");
  button.addEventListener("click", () => {
    const on = button.getAttribute("aria-pressed") !== "true";
    button.setAttribute("aria-pressed", String(on));
    say(on ? "on" : "off", on ? "Live" : "Paused");
    plan(0);
  });
  document.addEventListener("visibilitychange", () => plan(0));
  plan(EVERY_MS);
}
