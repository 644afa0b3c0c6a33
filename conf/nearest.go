package conf

import "strings"

// Nearest returns the word of known that is most likely meant by word, or "" if none comes near.
// It is for "did you mean": differences in case and between '-' and '_' count nothing, a letter
// left out, added, exchanged or swapped with its neighbour counts one, and up to a third of the
// letters may differ. Of equally near words the first wins.
func Nearest(word string, known []string) string {
	const longest = 64 // the distance takes time in proportion to the product of the lengths
	if len(word) > longest {
		return ""
	}
	fold := func(s string) string { return strings.ReplaceAll(strings.ToLower(s), "-", "_") }
	w := fold(word)
	best, least := "", max(1, len(w)/3)+1
	for _, k := range known {
		if k == "" || len(k) > longest || len(k)-len(w) >= least || len(w)-len(k) >= least {
			continue
		}
		// A word of two letters is not near to every other word of two letters.
		if d := distance(w, fold(k)); d < least && d < len(k) {
			best, least = k, d
		}
	}
	return best
}

// distance is the number of edits between two words, a swap of neighbours counting one.
func distance(a, b string) int {
	two, one, cur := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range one {
		one[j] = j
	}
	for i := 1; i <= len(a); i++ {
		cur[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			cur[j] = min(one[j]+1, cur[j-1]+1, one[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				cur[j] = min(cur[j], two[j-2]+1)
			}
		}
		two, one, cur = one, cur, two
	}
	return one[len(b)]
}
