/* cmd_devices.c: `sinter devices`: what programs can run on here, with measured peak and bandwidth. */
#include "tools/bench.h"

int cmd_devices(const Command *self, int argc, char **argv) {
    StrList pos = {0};
    bool json = false, quick = false;
    const Opt opts[] = {
        { "json", 0, OPT_FLAG, &json, "", "one JSON object a line" },
        { "quick", 0, OPT_FLAG, &quick, "", "measure nothing (of OpenCL devices nothing is measured)" },
        { 0 }
    };
    sn_device_info d[32];
    int rc = cmd_parse(self, argc, argv, opts, &pos);
    if (rc >= 0) return rc;
    int n = sn_devices(d, 32, !quick);
    if (!json) printf("%-8s %5s %12s %10s  %s\n", "device", "cores", "f32 GFLOP/s", "GB/s", "what");
    for (int i = 0; i < n; i++) {
        if (json)
            bench_row(json_pack("{s:s s:s s:s s:I s:f s:f}", "kind", "device", "name", d[i].name, "what", d[i].what, "cores", (json_int_t)d[i].cores,
                                "peak_gflops", d[i].peak_gflops_f32, "bandwidth_gbs", d[i].bandwidth_gbs));
        else if (d[i].peak_gflops_f32 == 0)
            printf("%-8s %5d %12s %10s  %s\n", d[i].name, d[i].cores, "-", "-", d[i].what);
        else
            printf("%-8s %5d %12.1f %10.1f  %s\n", d[i].name, d[i].cores, d[i].peak_gflops_f32, d[i].bandwidth_gbs, d[i].what);
    }
    return EXIT_DONE;
}
