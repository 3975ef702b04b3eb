// Downloads the file of a finished export, once per tab. Shows nothing.
"use strict";

const page = window.parent;
const STARTED = "export-started";

const tell = (type, data) =>
  page.postMessage({ isStreamlitMessage: true, type: `streamlit:${type}`, ...data }, window.location.origin);

window.addEventListener("message", (event) => {
  if (event.source !== page || event.data.type !== "streamlit:render") return;
  const { path, job } = event.data.args;
  if (page.sessionStorage.getItem(STARTED) === job) return;
  page.sessionStorage.setItem(STARTED, job);
  const link = page.document.createElement("a");
  link.href = path;
  link.download = "";
  link.click();
});

tell("componentReady", { apiVersion: 1 });
tell("setFrameHeight", { height: 0 });
