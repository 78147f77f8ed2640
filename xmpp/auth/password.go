package auth

import (
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/secure/precis"
	"golang.org/x/text/unicode/norm"
)

// ErrPassword is wrapped by the error for a password that no account can have: empty, too long, not UTF-8, or with a character that no
// client can be expected to enter in one way only. The text that goes with it is for people and holds no part of the password.
var ErrPassword = errors.New("unusable password")

// maxPassword is in bytes. chosen: RFC 4616 §2 wants 255 octets at least, XEP-0438 §8 allows a limit of 64 to 128 characters; 255
// characters of four bytes fit. It bounds the work of preparing, too.
const maxPassword = 1023

// preparePassword brings a password into the form that is hashed.
//
// With SCRAM it is the client that hashes, so this must be what clients do. RFC 5802 §2.2 says SASLprep (RFC 4013, Unicode 3.2 for
// ever); RFC 8265 §4.2 replaced that by the OpaqueString profile, which normalises with NFC instead of NFKC and removes nothing. Chosen:
// the mapping and the NFKC of SASLprep, then the checks of OpaqueString. So the result
//
//   - is that of SASLprep wherever SASLprep has one, but for conjoining Hangul Jamo of old Korean, which OpaqueString forbids;
//   - is that of OpaqueString, and the password itself for a client that does nothing, wherever NFKC changes nothing: ASCII, and the
//     letters of all living scripts as keyboards produce them. Clients of all kinds can use all those passwords with SCRAM;
//   - exists for characters that are younger than Unicode 3.2 and for mixed directions, where SASLprep fails.
//
// What remains are compatibility characters ("½", "²", fullwidth letters): the RFC's clients can use them with SCRAM, those that follow
// OpaqueString or do nothing with PLAIN only, where the server prepares.
func preparePassword(password string) (string, error) {
	if len(password) > maxPassword {
		return "", fmt.Errorf("%w: longer than %d bytes", ErrPassword, maxPassword)
	}
	if !utf8.ValidString(password) {
		return "", fmt.Errorf("%w: not UTF-8", ErrPassword)
	}
	prepared := norm.NFKC.String(strings.Map(mapForSASLprep, password)) // RFC 4013 §2.1, §2.2
	prepared, err := precis.OpaqueString.String(prepared)               // RFC 8265 §4.2; §4.1: empty is an error
	if err != nil {
		return "", fmt.Errorf("%w: empty, or with a character that is not allowed", ErrPassword) // precis would quote the character
	}
	return prepared, nil
}

// mapForSASLprep is RFC 4013 §2.1: RFC 3454 table C.1.2 becomes a space, table B.1 nothing.
func mapForSASLprep(r rune) rune {
	switch {
	case unicode.Is(unicode.Zs, r), r == 0x200B:
		return ' '
	case r == 0x00AD, r == 0x034F, r == 0x1806, 0x180B <= r && r <= 0x180D, r == 0x200C, r == 0x200D, r == 0x2060,
		0xFE00 <= r && r <= 0xFE0F, r == 0xFEFF:
		return -1
	}
	return r
}
