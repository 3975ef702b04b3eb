// Tells the page's script once that the browser has painted the table. Shows nothing.
"use strict";

const GRID = '[data-testid="stDataFrame"] canvas';
const LOOK_AGAIN_MS = 50;

const tell = (type, data) =>
  window.parent.postMessage({ isStreamlitMessage: true, type: `streamlit:${type}`, ...data }, window.location.origin);

const whenPainted = () => {
  if (window.parent.document.querySelector(GRID) === null) {
    window.setTimeout(whenPainted, LOOK_AGAIN_MS);
    return;
  }
  // Two frames later the canvas has been drawn on.
  window.requestAnimationFrame(() =>
    window.requestAnimationFrame(() => tell("setComponentValue", { value: true, dataType: "json" })),
  );
};

tell("componentReady", { apiVersion: 1 });
tell("setFrameHeight", { height: 0 });
whenPainted();
