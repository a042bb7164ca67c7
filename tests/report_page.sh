#!/usr/bin/env bash
# Renders the page of `tuner report --out DIR` by headless Chromium, into the folder PICTURES: 1200 pixels
# wide in light and dark, and 360 pixels wide. Fails if the page is wider than 360 pixels there.
# Usage: tests/report_page.sh DIR PICTURES
set -euo pipefail
page="$(realpath "$1")/index.html"
mkdir -p "$2"
pictures="$(realpath "$2")"
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT

browser() {
    chromium --headless --no-sandbox --disable-gpu --hide-scrollbars --allow-file-access-from-files \
        --user-data-dir="$work/profile" --virtual-time-budget=5000 "$@" 2>/dev/null
}

# The least window of Chromium is wider than a phone, a frame is not.
cat >"$work/phone.html" <<END
<body style="margin:0"><iframe id="page" src="file://$page" style="width:360px;height:4000px;border:0"></iframe>
<script>
page.onload = () => { document.title = "width " + page.contentDocument.documentElement.scrollWidth; };
</script></body>
END
browser --blink-settings=preferredColorScheme=1 --window-size=1200,4000 --screenshot="$pictures/light.png" "file://$page"
browser --blink-settings=preferredColorScheme=0 --window-size=1200,4000 --screenshot="$pictures/dark.png" "file://$page"
browser --window-size=500,4000 --screenshot="$pictures/phone.png" "file://$work/phone.html"
width="$(browser --dump-dom "file://$work/phone.html" | sed -n 's/.*<title>width \([0-9]*\)<.*/\1/p')"
if [ -z "$width" ] || [ "$width" -gt 360 ]; then
    echo "$page: the page is ${width:-unknown} pixels wide, expected at most 360" >&2
    exit 1
fi
echo "$page: $width of 360 pixels wide; pictures in $pictures"
