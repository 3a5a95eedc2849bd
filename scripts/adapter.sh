#!/bin/sh
# See to it that there is a Vulkan adapter: ask the binary, install Mesa's software driver where there is none, ask again. Never calls sudo.
set -eu
cd "$(dirname "$0")/.."
export NODEVICE_SELECT=1
CARGO=${CARGO:-cargo}
INSTALL='apt-get update && apt-get install -y --no-install-recommends mesa-vulkan-drivers'

# A build that fails ends the script here, with cargo's own message.
found() {
    list=$("$CARGO" run --release --quiet -- devices) || exit 1
    case $list in *vulkan*) true ;; *) false ;; esac
}

if found; then exit 0; fi
echo 'no Vulkan adapter here' >&2
if ! command -v apt-get >/dev/null; then
    echo 'install a Vulkan driver (for software rendering: lavapipe, of the Mesa project), then run this again' >&2
    exit 1
fi
if [ "$(id -u)" -ne 0 ]; then
    echo "install Mesa's software driver as root, then run this again:" >&2
    echo "    sudo sh -c '$INSTALL'" >&2
    exit 1
fi
echo "installing Mesa's software driver: $INSTALL" >&2
export DEBIAN_FRONTEND=noninteractive
sh -c "$INSTALL" >&2
if found; then exit 0; fi
echo 'mesa-vulkan-drivers is installed, and there is still no Vulkan adapter' >&2
exit 1
