# A systemd of its own on the test machine: first process of a PID namespace, with no units but these.
units=/tmp/units
mkdir -p $units /etc/pinvisor
mount -t cgroup2 cgroup /sys/fs/cgroup
mount --make-rshared /
cp /testbed/bin/pinvisor /usr/bin/pinvisor
cp /testbed/pinvisor@.service $units
for target in basic local-fs multi-user shutdown sleep sysinit; do
    printf '[Unit]\nDefaultDependencies=no\n' > $units/$target.target
done
export SYSTEMD_UNIT_PATH=$units SYSTEMD_GENERATOR_PATH=/nowhere SYSTEMD_IGNORE_CHROOT=1 container=testbed
unshare --pid --fork --mount-proc /lib/systemd/systemd --system --unit=basic.target \
    --log-target=kmsg > /dev/null 2>&1 < /dev/null &
for tenth in $(seq 100); do
    [ -S /run/systemd/private ] && break
    sleep 0.1
done
# It listens to processes of its namespace only.
first=$(pidof systemd)
systemctl() { nsenter --target "$first" --pid /usr/bin/systemctl "$@"; }
# unit NAME KERNEL [LINE...]: the file of a guest that boots /testbed/KERNEL, and lines for its unit.
unit() {
    name=$1
    cat > "/etc/pinvisor/$name.toml" <<END
noiommu = true
device = ["$TESTBED_BDF_0"]
kernel = "/testbed/$2"
memory = "128M"
serial = "file=/var/log/pinvisor/$name"
log-file = "/var/log/pinvisor/$name.log"
END
    shift 2
    mkdir -p "$units/pinvisor@$name.service.d"
    printf '%s\n' '[Service]' "$@" > "$units/pinvisor@$name.service.d/test.conf"
    systemctl daemon-reload
}
# show KEY NAME: what systemd has of the unit.
show() {
    for property in ActiveState Result ExecMainStatus StatusText; do
        say "$1_$property" "$(systemctl show --value --property=$property "pinvisor@$2")"
    done
}
# group NAME: the unit's control group.
group() { echo /sys/fs/cgroup/system.slice/system-pinvisor.slice/pinvisor@"$1".service; }
# processes KEY NAME: how many of each kind are in the unit's control group, or were.
processes() {
    monitors=0 keepers=0
    for process in $(cat "$(group "$2")/cgroup.procs" 2>/dev/null); do
        case $(tr '\0' ' ' < "/proc/$process/cmdline") in
            *" keeper "*) keepers=$((keepers + 1)) keeper=$process ;;
            *" run "*) monitors=$((monitors + 1)) monitor=$process ;;
        esac
    done
    say "$1_processes" "$monitors $keepers"
}
# await_waits NAME: until the guest waits, or the service is no longer active.
await_waits() {
    for second in $(seq 120); do
        grep -q 'guest: waits' "/var/log/pinvisor/$1" && break
        systemctl --quiet is-active "pinvisor@$1" || break
        sleep 1
    done
}
