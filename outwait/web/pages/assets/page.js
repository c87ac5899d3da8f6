// Optional extras on top of plain HTML: pages update themselves, ids can be copied, and all rows can be selected.
"use strict";

const RETRY_LIMIT = 60; // seconds between two tries while the server does not answer

const main = document.getElementById("main");
const live = document.getElementById("live");
const fresh = document.getElementById("fresh");
let failures = 0;
let stopped = false;

function enhance() {
  for (const button of main.querySelectorAll("[data-copy]")) {
    if (!navigator.clipboard) continue; // browsers allow copying only over https or on localhost
    button.hidden = false;
    button.addEventListener("click", async () => {
      await navigator.clipboard.writeText(document.getElementById(button.dataset.copy).textContent);
      button.textContent = "Copied";
      setTimeout(() => { button.textContent = "Copy"; }, 1500);
    });
  }
  for (const all of main.querySelectorAll("[data-all]")) {
    all.hidden = false;
    all.addEventListener("change", () => {
      for (const box of main.querySelectorAll(`[name="${all.dataset.all}"]`)) box.checked = all.checked;
    });
  }
}

// The page is not replaced while a person works with it.
function busy() {
  return document.hidden
    || stopped
    || (document.activeElement !== main && main.contains(document.activeElement))
    || main.querySelector("details.ask[open], input:checked") !== null
    || !getSelection().isCollapsed;
}

function replace(update) {
  const open = new Set([...main.querySelectorAll("details[open][data-keep]")].map((details) => details.dataset.keep));
  main.replaceChildren(...update.childNodes);
  for (const details of main.querySelectorAll("details[data-keep]")) details.open = open.has(details.dataset.keep);
  if ("refresh" in update.dataset) main.dataset.refresh = update.dataset.refresh;
  else delete main.dataset.refresh;
  enhance();
}

async function load() {
  const answer = await fetch(location.href, { headers: { accept: "text/html" }, signal: AbortSignal.timeout(15000) });
  if (answer.redirected) return location.reload(); // logged out
  if (!answer.ok) throw new Error(answer.status);
  const update = new DOMParser().parseFromString(await answer.text(), "text/html").getElementById("main");
  if (!busy()) replace(update);
}

function showStatus() {
  fresh.textContent = stopped ? "Updates are stopped." : failures ? "No answer: trying again." : "This page updates itself.";
  live.textContent = stopped ? "Start updates" : "Stop updates";
}

async function refresh() {
  if (!busy()) {
    try {
      await load();
      failures = 0;
    } catch {
      failures += 1;
    }
    showStatus();
  }
  schedule();
}

function schedule() {
  const seconds = Number(main.dataset.refresh);
  live.parentElement.hidden = !seconds;
  if (seconds) setTimeout(refresh, Math.min(seconds * 2 ** failures, RETRY_LIMIT) * 1000);
}

live.addEventListener("click", () => {
  stopped = !stopped;
  showStatus();
});

const address = new URL(location.href);
if (address.searchParams.has("done")) {
  // The message is shown once, not again after a reload.
  address.searchParams.delete("done");
  address.searchParams.delete("n");
  history.replaceState(null, "", address);
}
enhance();
showStatus();
schedule();
