"""Grammar constraints as data: a branch's grammar state is one int32 on the device."""
