// Package spelling finds the word that a misspelled one may mean.
package spelling

// Closest returns the candidate that is most similar to word, or otherwise if none is
// within a third of its length.
func Closest(word string, candidates []string, otherwise string) string {
	best, least := otherwise, len(word)
	for _, candidate := range candidates {
		if n := Distance(word, candidate); n <= max(1, len(candidate)/3) && n < least {
			best, least = candidate, n
		}
	}
	return best
}

// Distance returns the Levenshtein distance.
func Distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, diagonal+1)
		}
	}
	return row[len(b)]
}
