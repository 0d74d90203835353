# Bundles for runc, made of the documented example.
mount -t cgroup2 cgroup /sys/fs/cgroup
bundle=/tmp/bundle
mkdir -p $bundle/rootfs/testbed
cp /testbed/bin/pinvisor $bundle/rootfs
# What the program is linked to, unlike one that is distributed.
for library in $(ldd /testbed/bin/pinvisor | grep -o '/[^ ]*'); do
    mkdir -p "$bundle/rootfs${library%/*}"
    cp "$library" "$bundle/rootfs$library"
done
mount --bind /testbed $bundle/rootfs/testbed
# The map of addresses, for a process without CAP_SYS_ADMIN.
install -D -m 444 /proc/iomem /run/pinvisor/iomem
# numbers NODE: its major and minor number, as in the example.
numbers() { stat -c '%Hr %Lr' "$1" | sed 's/\(.*\) \(.*\)/"major": \1, "minor": \2/'; }
# in_container [PROGRAM ARGUMENT...]: runs that in a container with the name $container, with the capabilities
# $capabilities and the variables $environment beside those of the example. The device is the first one.
container=guest capabilities= environment=
in_container() {
    arguments=
    shift
    for argument; do arguments="$arguments, \"$argument\""; done
    node=$(echo /sys/bus/pci/devices/$TESTBED_BDF_0/vfio-dev/*)
    node=/dev/vfio/devices/${node##*/}
    awk -v arguments="\"/pinvisor\"$arguments" '
        /"args": \[/ { print "    \"args\": [" arguments "],"; skip = 1 }
        !skip { print }
        skip && /\],/ { skip = 0 }' /testbed/config.json |
        sed -e "s|\"major\": 10, \"minor\": 125|$(numbers /dev/iommu)|" \
            -e "s|\"major\": 511, \"minor\": 0|$(numbers "$node")|" \
            -e "s|/dev/vfio/devices/noiommu-vfio0|$node|" \
            -e "s|\"CAP_SYS_RAWIO\"|\"CAP_SYS_RAWIO\"$capabilities|" \
            -e "s|\"PATH=/\"|\"PATH=/\"$environment|" > $bundle/config.json
    runc run --no-pivot --bundle $bundle $container
}
# in_user_namespace MAP PROGRAM ARGUMENT...: runs that in a user namespace with this map of users, which a process in a
# chroot can enter but not create.
in_user_namespace() {
    chroot /proc/1/root /bin/busybox unshare --user /bin/busybox sleep 1000 &
    holder=$!
    for tenth in $(seq 100); do
        [ "$(readlink /proc/$holder/ns/user)" = "$(readlink /proc/self/ns/user)" ] || break
        sleep 0.1
    done
    echo "$1" > /proc/$holder/uid_map
    echo "$1" > /proc/$holder/gid_map
    shift
    nsenter --target $holder --user "$@"
    status=$?
    kill $holder
    return $status
}
