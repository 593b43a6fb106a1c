package ppp

import (
	"fmt"
	"strconv"
	"strings"

	"culvert/ppp/aaa"
)

// successText is the message of a Success packet: MS-CHAPv2's proof (RFC 2759 section 5), else pleasantry.
func successText(m aaa.Method, g *aaa.Grant) string {
	if m == aaa.MSCHAP2 {
		return g.AuthenticatorResponse + " M=Welcome"
	}
	return "Welcome"
}

// failureText is the message of a Failure packet (RFC 2433 section 8, RFC 2759 section 6). Windows shows the user a text
// of its own for each code, and asks again on the same link where another try is allowed. Ours says as little as it can.
func failureText(m aaa.Method, code aaa.Code, again bool, challenge []byte) string {
	if code == 0 {
		code = aaa.AuthFailure
	}
	retry, version := 0, 3
	if again {
		retry = 1
	}
	if m == aaa.MSCHAP1 {
		version = 2
	}
	return fmt.Sprintf("E=%d R=%d C=%X V=%d M=%s", code, retry, challenge, version, failureMessage(code))
}

func failureMessage(code aaa.Code) string {
	switch code {
	case aaa.RestrictedHours:
		return "Restricted logon hours"
	case aaa.AccountDisabled:
		return "Account disabled"
	case aaa.PasswordExpired:
		return "Password expired"
	case aaa.NoDialin:
		return "No dialin permission"
	case aaa.ChangePassword:
		return "Change password"
	}
	return "Authentication failed"
}

// failureReason reads a Failure packet that the peer sent us. Nothing in it is trusted to be there.
func failureReason(m aaa.Method, b []byte) string {
	text := shorten(b)
	if m != aaa.MSCHAP1 && m != aaa.MSCHAP2 {
		return text
	}
	for field := range strings.FieldsSeq(text) {
		digits, ok := strings.CutPrefix(field, "E=")
		if !ok {
			continue
		}
		code, err := strconv.ParseUint(digits, 10, 16)
		if err != nil {
			break
		}
		_, message, _ := strings.Cut(text, "M=")
		if message == "" {
			message = failureMessage(aaa.Code(code))
		}
		return fmt.Sprintf("error %d, %s", code, message)
	}
	return text
}
