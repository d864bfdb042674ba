package machine

import (
	"fmt"
	"time"

	"github.com/usbarmory/tamago/soc/intel/rtc"
)

// setWallClock reads the real-time clock once; from then on the monotonic clock carries the wall clock along. The real-time
// clock counts whole seconds, so the wall clock is up to one second late.
func setWallClock() error {
	dev := rtc.RTC{Location: time.UTC}
	for range 1000 {
		t, err := dev.Now()
		if err == nil {
			if t.Year() < 2000 {
				break
			}
			setWall(t.UnixNano())
			return nil
		}
		time.Sleep(50 * time.Microsecond) // an update of the clock's registers takes 2 ms at most
	}
	return fmt.Errorf("no usable real-time clock at port 0x70 (QEMU: -machine microvm,rtc=on)")
}

// deviceNames lists what the machine has beside memory and processors.
func deviceNames() []string {
	return []string{"16550 serial port at 0x3f8", "real-time clock at 0x70", "local APIC timer"}
}
