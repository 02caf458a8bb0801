//! Which fields of the catalogue a real event can answer, and why the others cannot: what the listings, the documentation
//! and `purser rules check` say. A test holds the table against [`Sight`](super::Sight).

use purser_rules::FieldId;

/// Why the field has no value on any event of this build; `None` if some event has one.
pub fn absent(field: FieldId) -> Option<&'static str> {
    ABSENT.iter().find(|(_, fields)| fields.contains(&field)).map(|(reason, _)| *reason)
}

/// Whether a parameter (`evt.arg.PARAMETER`) of an event that the sensor delivers has no value all the same.
pub fn absent_parameter(event: &str, parameter: &str) -> bool {
    ABSENT_PARAMETERS.iter().any(|(events, names)| events.contains(&event) && names.contains(&parameter))
}

/// Whether a field is known only some time after the event, when the program has been looked up in the manifest: a rule that
/// reads it waits for that.
pub fn waits(field: FieldId) -> bool {
    WAITS.contains(&field)
}

const WAITS: &[FieldId] = &[
    FieldId::MANIFEST_VERDICT,
    FieldId::MANIFEST_REASON,
    FieldId::MANIFEST_STATUS,
    FieldId::MANIFEST_SOURCE,
    FieldId::MANIFEST_DIGEST,
    FieldId::MANIFEST_COVERAGE,
    FieldId::PROC_EXE_SHA256,
    FieldId::PROC_EXE_LAYER,
];

/// Events, and the parameters that they never fill in.
const ABSENT_PARAMETERS: &[(&[&str], &[&str])] = &[
    (
        &["execve", "execveat", "clone", "clone3", "fork", "vfork"],
        &["cgroups", "fdlimit", "pgft_maj", "pgft_min", "vm_rss", "vm_size", "vm_swap"],
    ),
    (&["clone", "clone3", "fork", "vfork"], &["flags"]),
    (&["openat2"], &["resolve"]),
    (&["clone", "clone3", "fork", "vfork"], &["pidns_init_start_ts"]),
    (&["procexit"], &["reaper_tid"]),
    (&["sendmmsg", "recvmmsg"], &["size", "data", "msgcontrol"]),
    (&["fsconfig"], &["value_bytebuf"]),
    (&["socket"], &["flags"]),
    (&["accept", "accept4"], &["queuepct", "queuelen", "queuemax"]),
    (&["recvmsg"], &["msgcontrol"]),
    (&["process_vm_readv", "process_vm_writev"], &["data"]),
    (&["mmap"], &["vm_size", "vm_rss", "vm_swap"]),
    (&["prctl"], &["arg2_str"]),
    (&["init_module"], &["img"]),
    (&["io_uring_setup"], &["sq_entries", "cq_entries", "flags", "sq_thread_cpu", "sq_thread_idle", "features"]),
];

/// A reason, and the fields that it keeps without value.
const ABSENT: &[(&str, &[FieldId])] = &[
    (
        "comes from plugins; this agent has the kernel as its one source",
        &[FieldId::EVT_PLUGINNAME, FieldId::EVT_PLUGININFO],
    ),
    ("only injected events have it, and none is injected", &[FieldId::EVT_ASYNCTYPE]),
    (
        "needs events of calls that read or write files, which the sensor does not deliver",
        &[FieldId::EVT_BUFLEN_FILE, FieldId::EVT_BUFLEN_FILE_IN, FieldId::EVT_BUFLEN_FILE_OUT],
    ),
    (
        "belongs to events that upstream's capture files hold",
        &[FieldId::EVT_COUNT_PROCINFO, FieldId::EVT_COUNT_THREADINFO],
    ),
    ("asks for a time in a capture file", &[FieldId::EVT_AROUND]),
    (
        "belongs to legacy events that nothing sends",
        &[
            FieldId::EVT_INFRA_DOCKER_NAME,
            FieldId::EVT_INFRA_DOCKER_CONTAINER_ID,
            FieldId::EVT_INFRA_DOCKER_CONTAINER_NAME,
            FieldId::EVT_INFRA_DOCKER_CONTAINER_IMAGE,
        ],
    ),
    (
        "the start of a pid namespace is not recorded",
        &[FieldId::PROC_EXE_INO_CTIME_DURATION_PIDNS_START, FieldId::PROC_PIDNS_INIT_START_TS],
    ),
    (
        "the descriptors that a process has open are not tracked",
        &[
            FieldId::PROC_FDOPENCOUNT,
            FieldId::PROC_FDLIMIT,
            FieldId::PROC_FDUSAGE,
            FieldId::PROC_STDIN_TYPE,
            FieldId::PROC_STDOUT_TYPE,
            FieldId::PROC_STDERR_TYPE,
            FieldId::PROC_STDIN_NAME,
            FieldId::PROC_STDOUT_NAME,
            FieldId::PROC_STDERR_NAME,
            FieldId::FD_TYPES,
        ],
    ),
    (
        "the kernel's accounting of memory and time is not read at events",
        &[
            FieldId::PROC_VMSIZE,
            FieldId::PROC_VMRSS,
            FieldId::PROC_VMSWAP,
            FieldId::THREAD_PFMAJOR,
            FieldId::THREAD_PFMINOR,
            FieldId::THREAD_EXECTIME,
            FieldId::THREAD_TOTEXECTIME,
            FieldId::THREAD_CPU,
            FieldId::THREAD_CPU_USER,
            FieldId::THREAD_CPU_SYSTEM,
            FieldId::THREAD_VMSIZE,
            FieldId::THREAD_VMRSS,
            FieldId::THREAD_VMSIZE_B,
            FieldId::THREAD_VMRSS_B,
        ],
    ),
    ("threads are not counted", &[FieldId::PROC_NTHREADS, FieldId::PROC_NCHILDS]),
    (
        "cgroup v1 names are not read; containers are known by cgroup v2 id",
        &[FieldId::THREAD_CGROUPS, FieldId::THREAD_CGROUP],
    ),
    (
        "needs events of poll, which the sensor does not deliver",
        &[
            FieldId::FDLIST_NUMS,
            FieldId::FDLIST_NAMES,
            FieldId::FDLIST_CIPS,
            FieldId::FDLIST_SIPS,
            FieldId::FDLIST_CPORTS,
            FieldId::FDLIST_SPORTS,
        ],
    ),
    ("upstream's own counter, of no use in rules", &[FieldId::UTIL_CNT]),
    (
        "upstream has no value for it either",
        &[
            FieldId::CONTAINER_HEALTHCHECK,
            FieldId::CONTAINER_LIVENESS_PROBE,
            FieldId::CONTAINER_READINESS_PROBE,
            FieldId::PROC_IS_CONTAINER_HEALTHCHECK,
            FieldId::PROC_IS_CONTAINER_LIVENESS_PROBE,
            FieldId::PROC_IS_CONTAINER_READINESS_PROBE,
            FieldId::K8S_RC_NAME,
            FieldId::K8S_RC_ID,
            FieldId::K8S_RC_LABEL,
            FieldId::K8S_RC_LABELS,
            FieldId::K8S_SVC_NAME,
            FieldId::K8S_SVC_ID,
            FieldId::K8S_SVC_LABEL,
            FieldId::K8S_SVC_LABELS,
            FieldId::K8S_NS_ID,
            FieldId::K8S_NS_LABEL,
            FieldId::K8S_NS_LABELS,
            FieldId::K8S_RS_NAME,
            FieldId::K8S_RS_ID,
            FieldId::K8S_RS_LABEL,
            FieldId::K8S_RS_LABELS,
            FieldId::K8S_DEPLOYMENT_NAME,
            FieldId::K8S_DEPLOYMENT_ID,
            FieldId::K8S_DEPLOYMENT_LABEL,
            FieldId::K8S_DEPLOYMENT_LABELS,
        ],
    ),
    (
        "the runtime is not asked for the network of a container",
        &[FieldId::CONTAINER_IP, FieldId::CONTAINER_CNI_JSON, FieldId::K8S_POD_IP, FieldId::K8S_POD_CNI_JSON],
    ),
    ("signatures of manifests are not checked", &[FieldId::MANIFEST_SIGNER, FieldId::MANIFEST_ISSUER]),
    (
        "manifests do not list packages or build ids",
        &[FieldId::PROC_EXE_PACKAGE, FieldId::PROC_EXE_PACKAGE_VERSION, FieldId::PROC_EXE_BUILD_ID],
    ),
    (
        "scripts are not judged, only the interpreter",
        &[FieldId::PROC_SCRIPT_PATH, FieldId::PROC_SCRIPT_SHA256, FieldId::PROC_SCRIPT_VERDICT],
    ),
    (
        "needs events of executable mappings, which the sensor does not deliver",
        &[FieldId::LIB_PATH, FieldId::LIB_SHA256, FieldId::LIB_VERDICT],
    ),
];

#[cfg(test)]
mod tests;
