package ipsecconf

// Limits of what is read. They are far above real configurations.
const (
	limitFileSize     = 4 << 20  // bytes of one file
	limitTotalSize    = 32 << 20 // bytes of all files together
	limitFiles        = 1024     // that one import reads
	limitIncludeDepth = 16
	limitLines        = 400_000 // settings, sections and comments of all files
	limitValue        = 64 << 10
	limitName         = 200     // bytes of a connection's name: those of its children have a suffix
	limitInherited    = 500_000 // settings of all connections, inherited ones counted
	limitChildren     = 1024    // made of leftsubnets and rightsubnets
	limitAllChildren  = 50_000
	limitList         = 256 // items of one value
	limitReasons      = 4   // that are told of one line
)
