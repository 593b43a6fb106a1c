package lab

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"time"
)

// vici speaks just enough of strongSwan's control protocol to start and stop exchanges without a swanctl process for
// each, whose start would take longer than the exchange.
type vici struct{ net.Conn }

func (n *Node) vici() (v vici, err error) {
	n.Do(func() { v.Conn, err = net.Dial("unix", "/run/charon.vici") })
	return v, err
}

// request runs a command with flat key-value arguments and returns an error unless charon says success.
func (v vici) request(command string, args ...[2]string) error {
	b := append([]byte{0, byte(len(command))}, command...)
	for _, a := range args {
		b = append(append(b, 3, byte(len(a[0]))), a[0]...)
		b = append(binary.BigEndian.AppendUint16(b, uint16(len(a[1]))), a[1]...)
	}
	v.SetDeadline(time.Now().Add(60 * time.Second))
	if _, err := v.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(b))), b...)); err != nil {
		return err
	}
	var head [4]byte
	if _, err := io.ReadFull(v, head[:]); err != nil {
		return err
	}
	n := binary.BigEndian.Uint32(head[:])
	if n == 0 || n > 1<<20 {
		return errors.New("vici: malformed answer")
	}
	answer := make([]byte, n)
	if _, err := io.ReadFull(v, answer); err != nil {
		return err
	}
	if answer[0] != 1 {
		return fmt.Errorf("vici: answer of type %d to %s", answer[0], command)
	}
	values := map[string]string{}
	for rest := answer[1:]; len(rest) > 1 && rest[0] == 3; {
		key := int(rest[1])
		if len(rest) < 4+key {
			break
		}
		value := int(binary.BigEndian.Uint16(rest[2+key:]))
		if len(rest) < 4+key+value {
			break
		}
		values[string(rest[2:2+key])] = string(rest[4+key : 4+key+value])
		rest = rest[4+key+value:]
	}
	if values["success"] != "yes" {
		return fmt.Errorf("charon: %s: %s", command, values["errmsg"])
	}
	return nil
}

// Exchange negotiates both phases and deletes them again, n times, as fast as it goes.
func (c *Charon) Exchange(n int) error {
	v, err := c.node.vici()
	if err != nil {
		return err
	}
	defer v.Close()
	for i := range n {
		if err := v.request("initiate", [2]string{"child", "l2tp"}, [2]string{"timeout", "20000"}, [2]string{"loglevel", "-1"}); err != nil {
			return fmt.Errorf("exchange %d: %w", i, err)
		}
		if err := v.request("terminate", [2]string{"ike", "l2tp"}, [2]string{"timeout", "20000"}, [2]string{"loglevel", "-1"}); err != nil {
			return fmt.Errorf("exchange %d: %w", i, err)
		}
	}
	return nil
}
