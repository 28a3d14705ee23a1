#!/bin/sh
# tools/tiers.sh OUT [MIB]: text of several kinds and qualities from what Debian has installed, for studies of data quality.
# Makes OUT/python, OUT/code, OUT/manuals, OUT/prose, OUT/logs, each up to MIB (default 4) of plain text, and prints what it has found; a kind
# that this machine lacks is named with the reason, and its folder is not made. The same files on the same machine each time.
#   python    the standard library                     prose   documentation of packages: README, .txt, .md, .rst, copyright
#   code      C headers and Perl modules               logs    changelogs of packages, logs of dpkg and apt
#   manuals   sources of manual pages
# sinter study models/studies/corpora.study reads them; exit status 1 where not one kind was found.
set -e
LC_ALL=C
export LC_ALL
OUT=${1:?usage: tools/tiers.sh OUT [MIB]}
LIMIT=$((${2:-4} * 1048576))
WORK=$(mktemp -d)
trap 'rm -rf "$WORK"' EXIT
yes 'the same order each time' | head -c 8388608 >"$WORK/dice" 2>/dev/null || true

# tier NAME REASON: the files named on stdin, decompressed, in a fixed random order, until there is enough; long ones are cut.
tier() {
    name=$1 reason=$2 size=0 n=0
    sort -u | shuf --random-source="$WORK/dice" >"$WORK/list"
    rm -rf "${OUT:?}/$name"
    while left=$((LIMIT - size)) && [ $left -gt 0 ] && IFS= read -r file; do
        n=$((n + 1))
        case $file in *.gz) gzip -dc "$file" 2>/dev/null || true ;; *) cat "$file" 2>/dev/null || true ;; esac | head -c $((left < LIMIT / 16 ? left : LIMIT / 16)) >"$WORK/text"
        bytes=$(wc -c <"$WORK/text")
        [ "$bytes" -gt 0 ] || continue
        mkdir -p "$OUT/$name"
        mv "$WORK/text" "$OUT/$name/$(printf %05d $n)"
        size=$((size + bytes))
    done <"$WORK/list"
    if [ $size = 0 ]; then echo "$name: none: $reason"; return; fi
    short=
    [ $size -ge $LIMIT ] || short=", all that is here"
    echo "$name: $size bytes in $(find "$OUT/$name" -type f | wc -l) files$short"
}
files() { find "$@" -type f -size -2048k 2>/dev/null || true; }

files /usr/lib/python3.[0-9]* -name '*.py' | tier python "no /usr/lib/python3.*; apt-get install python3"
{ files /usr/include -name '*.h'; files /usr/share/perl /usr/lib/*/perl -name '*.pm'; } | tier code "no headers and no Perl modules; apt-get install libc6-dev perl"
files /usr/share/man/man[1-8] -name '*.gz' | tier manuals "no pages in /usr/share/man: minimal images leave them out (/etc/dpkg/dpkg.cfg.d), reinstall packages without that"
files /usr/share/doc \( -name 'README*' -o -name '*.txt' -o -name '*.txt.gz' -o -name '*.md' -o -name '*.md.gz' -o -name '*.rst' -o -name copyright \) |
    tier prose "no documentation in /usr/share/doc: minimal images leave it out (/etc/dpkg/dpkg.cfg.d), reinstall packages without that"
{ files /usr/share/doc -name 'changelog*.gz'; files /var/log -name '*.log' -o -name '*.log.[0-9]*.gz'; } | tier logs "no changelogs in /usr/share/doc and no logs that this user may read in /var/log"
[ -n "$(ls -A "$OUT" 2>/dev/null)" ] || { echo "tiers.sh: nothing was found: is this Debian?" >&2; exit 1; }
