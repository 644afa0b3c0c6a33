package users

import "crypto/rand"

// letters of passwords: what people take for another is left out (0 O, 1 l I).
const letters = "abcdefghijkmnpqrstuvwxyz23456789"

// passwordLen is the number of letters of a password, 5 bits each: 100 bits. Whoever
// passes for the gateway sees an exchange of MSCHAPv2 and can try passwords at home.
const passwordLen = 20

// Password makes one, in groups that can be read aloud.
func Password() string {
	var b [passwordLen]byte
	rand.Read(b[:])
	out := make([]byte, 0, passwordLen+passwordLen/5)
	for i, c := range b {
		if i > 0 && i%5 == 0 {
			out = append(out, '-')
		}
		out = append(out, letters[int(c)%len(letters)])
	}
	return string(out)
}
