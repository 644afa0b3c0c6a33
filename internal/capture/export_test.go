package capture

// SetLimits replaces the limits of files for a test and returns the undoing.
func SetLimits(file, keys int64) func() {
	oldFile, oldKeys := limitFile, limitKeys
	limitFile, limitKeys = file, keys
	return func() { limitFile, limitKeys = oldFile, oldKeys }
}
