#!/usr/bin/env bash
# Renders the page of `tuner report --out DIR` by headless Chromium, into the folder PICTURES: 1200 pixels
# wide in light and dark, 360 pixels wide, and as it is printed. Fails if the page is wider than its window,
# if a text of a chart is cut or lies on another, if a chart is missing or shows other numbers than
# report.json, or if the console has a message.
# Usage: tests/report_page.sh DIR PICTURES
set -euo pipefail
folder="$(realpath "$1")"
page="$folder/index.html"
checks="$(dirname "$(realpath "$0")")/report_page.js"
mkdir -p "$2"
pictures="$(realpath "$2")"
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT

browser() {
    chromium --headless --no-sandbox --disable-gpu --hide-scrollbars --allow-file-access-from-files \
        --enable-logging=stderr --user-data-dir="$work/profile" --virtual-time-budget=20000 "$@" 2>>"$work/console"
}

# A page with the report in a frame of a width, and the faults of the report below it: the least window of
# Chromium is wider than a phone, a frame is not.
framed() {
    cat <<END
<body style="margin:0"><iframe id="page" src="file://$page" style="width:$1px;height:4000px;border:0"></iframe>
<script>
$(cat "$checks")
const report = $(sed 's|</|<\\/|g' "$folder/report.json");
page.onload = () => {
  const wrong = faults(page, report);
  const text = document.createElement("pre");
  text.id = "faults";
  text.textContent = ["checked", ...wrong].map((line) => "fault: " + line).join("\n");
  document.body.append(text);
};
</script></body>
END
}

browser --blink-settings=preferredColorScheme=1 --window-size=1200,4000 --screenshot="$pictures/light.png" "file://$page"
browser --blink-settings=preferredColorScheme=0 --window-size=1200,4000 --screenshot="$pictures/dark.png" "file://$page"
browser --no-pdf-header-footer --print-to-pdf="$pictures/print.pdf" "file://$page"
status=0
for width in 360 1200; do
    framed "$width" >"$work/$width.html"
    browser --dump-dom --window-size=1200,4000 "file://$work/$width.html" >"$work/dom"
    sed -n '/<pre id="faults">/,/<\/pre>/p' "$work/dom" | sed 's/<[^>]*>//g' >"$work/faults"
    if ! grep -qx 'fault: checked' "$work/faults"; then
        echo "$page: nothing was checked at $width pixels" >&2
        status=1
    fi
    if grep -vx 'fault: checked' "$work/faults" | sed "s|^fault: |$page, $width pixels: |" >&2; then status=1; fi
done
browser --window-size=500,4000 --screenshot="$pictures/phone.png" "file://$work/360.html"
if grep CONSOLE "$work/console" >&2; then
    echo "$page: the console has messages, expected none" >&2
    status=1
fi
[ "$status" = 0 ] && echo "$page: no faults at 360 and 1200 pixels; pictures in $pictures"
exit "$status"
