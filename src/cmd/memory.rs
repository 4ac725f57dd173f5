//! The process's memory limit: that of its control group, version 1 or 2.

use std::fs;
use std::path::Path;

/// Version 1 reports at least this without a limit (`i64::MAX` rounded down to pages); no real limit is close.
const NO_LIMIT: u64 = 1 << 62;

/// The lowest memory limit in bytes of the process's control group and its ancestors; `None` without a limit.
pub(super) fn cgroup_limit() -> Option<u64> {
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    lowest_limit(&groups, Path::new("/sys/fs/cgroup"))
}

/// `groups` has the format of `/proc/self/cgroup` (cgroups(7)): `number:controllers:path`, with empty controllers for
/// version 2. A container often sees its own group as the root, whatever the path, so the root counts too.
fn lowest_limit(groups: &str, root: &Path) -> Option<u64> {
    let limits = groups.lines().filter_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        let controllers = fields.next()?;
        let path = fields.next()?;
        let (folder, file) = match controllers {
            "" => (root.to_owned(), "memory.max"),
            of if of.split(',').any(|of| of == "memory") => (root.join("memory"), "memory.limit_in_bytes"),
            _ => return None,
        };
        let group = Path::new(path.trim_start_matches('/'));
        group.ancestors().filter_map(|group| limit_in(&folder.join(group).join(file))).min()
    });
    limits.min()
}

fn limit_in(file: &Path) -> Option<u64> {
    // "max" without a limit.
    let limit = fs::read_to_string(file).ok()?.trim().parse().ok()?;
    (limit < NO_LIMIT).then_some(limit)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    /// A file system of control groups, removed when dropped.
    struct Groups(PathBuf);

    impl Groups {
        fn of(name: &str, files: &[(&str, &str)]) -> Self {
            let root = std::env::temp_dir().join(format!("chatroom-{name}-{}", std::process::id()));
            for (file, text) in files {
                let file = root.join(file);
                fs::create_dir_all(file.parent().unwrap()).unwrap();
                fs::write(file, text).unwrap();
            }
            Self(root)
        }
    }

    impl Drop for Groups {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn version_2_uses_the_lowest_limit_on_the_path() {
        let files = [("a/memory.max", "1000\n"), ("a/b/memory.max", "max\n"), ("a/b/c/memory.max", "2000\n")];
        let groups = Groups::of("v2", &files);
        assert_eq!(lowest_limit("0::/a/b/c\n", &groups.0), Some(1000));
        assert_eq!(lowest_limit("0::/a/b\n", &groups.0), Some(1000));
        assert_eq!(lowest_limit("0::/\n", &groups.0), None);
        assert_eq!(lowest_limit("", &groups.0), None);
    }

    #[test]
    fn container_limit_is_at_the_root() {
        let groups =
            Groups::of("root", &[("memory.max", "4096\n"), ("memory/memory.limit_in_bytes", "512\n")]);
        assert_eq!(lowest_limit("0::/not/visible/here\n", &groups.0), Some(4096));
        assert_eq!(lowest_limit("5:cpu,memory:/docker/0123\n3:cpuset:/\n0::/\n", &groups.0), Some(512));
    }

    #[test]
    fn version_1_without_a_limit_is_unlimited() {
        let groups = Groups::of("v1", &[("memory/a/memory.limit_in_bytes", "9223372036854771712\n")]);
        assert_eq!(lowest_limit("5:memory:/a\n", &groups.0), None);
    }
}
