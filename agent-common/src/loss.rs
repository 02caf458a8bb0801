//! What the programs could not deliver, by stage and reason. Each variant is a slot of a per-CPU array.

macro_rules! losses {
    ($( $(#[$doc:meta])* $variant:ident = $slot:literal, $stage:literal, $reason:literal; )*) => {
        /// A reason for which an event, or a fact of one, was lost in the kernel.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[repr(u32)]
        pub enum Loss {
            $( $(#[$doc])* $variant = $slot, )*
        }

        impl Loss {
            /// Every reason.
            pub const ALL: &'static [Self] = &[$( Self::$variant, )*];

            /// The stage, as a metric label: `kernel` lost the event whole, `kernel_fact` lost a part of it.
            pub const fn stage(self) -> &'static str {
                match self { $( Self::$variant => $stage, )* }
            }

            /// The reason, as a metric label.
            pub const fn reason(self) -> &'static str {
                match self { $( Self::$variant => $reason, )* }
            }
        }
    };
}

losses! {
    /// No room in the ring: the record was dropped.
    RingFull = 0, "kernel", "ring_full";
    /// A program of the same family was interrupted on this CPU and holds the scratch buffer.
    ScratchBusy = 1, "kernel", "scratch_busy";
    /// No policy was set, or a map lookup that cannot fail failed.
    NoState = 2, "kernel", "no_state";
    /// The descriptor that the call returned was closed or replaced before its exit.
    FileGone = 3, "kernel_fact", "file_gone";
    /// The name as asked for could not be read from the task's memory.
    NameUnreadable = 4, "kernel_fact", "name_unreadable";
    /// argv could not be read from the new program's memory.
    ArgvUnreadable = 5, "kernel_fact", "argv_unreadable";
    /// The environment could not be read from the new program's memory.
    EnvUnreadable = 6, "kernel_fact", "env_unreadable";
    /// A path has more components, or more bytes, than are carried.
    PathTruncated = 7, "kernel_fact", "path_truncated";
    /// Too many `io_uring` requests were under way: the name as asked for was forgotten.
    IoUringNameForgotten = 8, "kernel_fact", "io_uring_name_forgotten";
    /// A connect's address could not be read.
    AddressUnreadable = 9, "kernel_fact", "address_unreadable";
}

impl Loss {
    /// Slots of the counter array.
    pub const SLOTS: u32 = 16;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_distinct_and_fit_the_array() {
        let mut seen = [false; Loss::SLOTS as usize];
        for loss in Loss::ALL {
            let slot = &mut seen[*loss as usize];
            assert!(!*slot, "{loss:?} shares its slot");
            *slot = true;
        }
    }
}
