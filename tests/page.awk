# page.awk: a page of Markdown with what its commands print now. In: -v sinter=BINARY, and a page with code blocks that start
# with `$ sinter ...` or `$ cat ...`, followed by the output. Out: the page. It is up to date when it comes out as it went in;
# to renew it:
#   awk -v sinter=build/sinter -f tests/page.awk docs/fusion.md >new && mv new docs/fusion.md
/^```/ { inside = !inside; skipping = 0 }
skipping { next }
{ print }
inside && /^\$ (sinter|cat) / {
    command = substr($0, 3)
    sub(/^sinter/, sinter, command)
    while ((command | getline line) > 0) print line
    close(command)
    skipping = 1
}
