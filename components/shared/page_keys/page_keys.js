// The keys / and ? on every page; on a phone the drawer closes once a page was chosen. Shows nothing.
"use strict";

const PHONE = "(max-width: 768px)"; // where Streamlit lays the sidebar over the page
const SEARCH = '[data-testid="stMain"] input[type="search"]';
const LINK = '[data-testid="stSidebar"] [data-testid="stPageLink-NavLink"]';
const CLOSE = '[data-testid="stSidebarCollapseButton"] button';

const page = window.parent;

const tell = (type, data) =>
  page.postMessage({ isStreamlitMessage: true, type: `streamlit:${type}`, ...data }, window.location.origin);

const isTyping = (element) =>
  element.isContentEditable || ["INPUT", "TEXTAREA", "SELECT"].includes(element.tagName);

const isGone = () => {
  if (window.frameElement !== null) return false;
  page.document.removeEventListener("keydown", onKey);
  page.document.removeEventListener("click", onClick);
  return true;
};

const onKey = (event) => {
  if (isGone() || event.ctrlKey || event.metaKey || event.altKey || isTyping(event.target)) return;
  if (page.document.querySelector('[role="dialog"]') !== null) return;
  if (event.key === "/") {
    const box = page.document.querySelector(SEARCH);
    if (box === null) return;
    event.preventDefault();
    box.focus();
    box.select();
  } else if (event.key === "?") {
    event.preventDefault();
    tell("setComponentValue", { value: Date.now(), dataType: "json" });
  }
};

const onClick = (event) => {
  if (isGone() || !page.matchMedia(PHONE).matches || event.target.closest(LINK) === null) return;
  page.document.querySelector(CLOSE)?.click();
};

tell("componentReady", { apiVersion: 1 });
tell("setFrameHeight", { height: 0 });
page.document.addEventListener("keydown", onKey);
page.document.addEventListener("click", onClick);
