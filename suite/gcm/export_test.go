package gcm

// Alone is the code for AVX-512 for every packet, small ones too, where that runs.
func Alone() (all []Implementation) {
	for _, i := range available {
		if i.kind == kindAVX512 {
			all = append(all, Implementation{kindAVX512Alone})
		}
	}
	return all
}
