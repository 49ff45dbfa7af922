# Arguments: SOURCE TARGET ro|rw ... -- RUNNER... PROGRAM ARGUMENTS...
# The mounts are those of this process alone: `unshare --mount` began it.
set -e
root=/mnt
mount -t tmpfs -o mode=755 sandbox $root
mkdir -p $root/proc $root/sys
# What a runtime gives every container: its processes, and /sys without what is mounted on it.
mount --rbind /proc $root/proc
mount --bind /sys $root/sys
mount -o remount,ro,bind $root/sys
# The program is linked dynamically, and what restricts it is a program of the host.
for folder in usr bin lib lib64; do
    if [ -L /$folder ]; then
        ln -s "$(readlink /$folder)" $root/$folder
    elif [ -d /$folder ]; then
        mkdir $root/$folder
        mount --bind /$folder $root/$folder
        mount -o remount,ro,bind $root/$folder
    fi
done
while [ "$1" != -- ]; do
    mkdir -p "$1" 2>/dev/null || true
    mkdir -p "$root$2"
    mount --rbind "$1" "$root$2"
    [ "$3" = rw ] || mount -o remount,ro,bind "$root$2"
    shift 3
done
shift
# Up to the program itself, an absolute path, are the words that restrict it.
words=
while [ "${1#/}" = "$1" ]; do
    words="$words $1"
    shift
done
touch $root/xlb
mount --bind "$1" $root/xlb
shift
mount -o remount,ro $root
exec chroot $root $words /xlb "$@"
