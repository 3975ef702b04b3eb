#!/bin/sh
# Debian's chromium for the browser tests. Where none can be had, one line says so and the rest still runs,
# unless BROWSER_REQUIRED is set (CI).
set -u
for name in chromium chromium-browser google-chrome; do
    command -v "$name" >/dev/null 2>&1 && exit 0
done
if command -v apt-get >/dev/null 2>&1 && [ "$(id -u)" = 0 ]; then
    echo "installing chromium for the browser tests"
    { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq chromium; } >/dev/null 2>&1 && exit 0
fi
echo "no chromium here and none could be installed: the browser tests are skipped" >&2
[ -z "${BROWSER_REQUIRED:-}" ]
