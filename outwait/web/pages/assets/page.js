// What pages have on top of plain HTML: they keep themselves fresh, copy ids, and choose all rows. Nothing needs it.
"use strict";

const LONGEST = 60; // seconds between two tries while the server does not answer

const main = document.getElementById("main");
const live = document.getElementById("live");
const fresh = document.getElementById("fresh");
let failures = 0;
let stopped = false;

function enhance() {
  for (const button of main.querySelectorAll("[data-copy]")) {
    if (!navigator.clipboard) continue; // only pages over https or of this machine may copy
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

// Nobody's work is taken from under their hands.
function busy() {
  return document.hidden
    || stopped
    || (document.activeElement !== main && main.contains(document.activeElement))
    || main.querySelector("details.ask[open], input:checked") !== null
    || !getSelection().isCollapsed;
}

function replace(found) {
  const open = new Set([...main.querySelectorAll("details[open][data-keep]")].map((one) => one.dataset.keep));
  main.replaceChildren(...found.childNodes);
  for (const one of main.querySelectorAll("details[data-keep]")) one.open = open.has(one.dataset.keep);
  if ("refresh" in found.dataset) main.dataset.refresh = found.dataset.refresh;
  else delete main.dataset.refresh;
  enhance();
}

async function look() {
  const answer = await fetch(location.href, { headers: { accept: "text/html" }, signal: AbortSignal.timeout(15000) });
  if (answer.redirected) return location.reload(); // logged out
  if (!answer.ok) throw new Error(answer.status);
  const found = new DOMParser().parseFromString(await answer.text(), "text/html").getElementById("main");
  if (!busy()) replace(found);
}

function say() {
  fresh.textContent = stopped ? "This page stands still." : failures ? "No answer: trying again." : "This page keeps itself fresh.";
  live.textContent = stopped ? "Go on" : "Stop";
}

async function refresh() {
  if (!busy()) {
    try {
      await look();
      failures = 0;
    } catch {
      failures += 1;
    }
    say();
  }
  schedule();
}

function schedule() {
  const seconds = Number(main.dataset.refresh);
  live.parentElement.hidden = !seconds;
  if (seconds) setTimeout(refresh, Math.min(seconds * 2 ** failures, LONGEST) * 1000);
}

live.addEventListener("click", () => {
  stopped = !stopped;
  say();
});

const address = new URL(location.href);
if (address.searchParams.has("done")) {
  // Told once: not again after a reload.
  address.searchParams.delete("done");
  address.searchParams.delete("n");
  history.replaceState(null, "", address);
}
enhance();
say();
schedule();
