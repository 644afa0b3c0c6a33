package conf

// Limits of what the parser accepts. A file beyond one of them is refused with an [Error] that
// wraps [ErrLimit]. They are far above real configurations (ten thousand connections are about
// 5 MiB and 300,000 nodes) and keep a mistaken or hostile one from exhausting memory.
const (
	// MaxFileSize is the size in bytes of one file.
	MaxFileSize = 64 << 20
	// MaxTotalSize is the size in bytes of a file and everything it includes.
	MaxTotalSize = 256 << 20
	// MaxFiles is the number of files that one parse may read.
	MaxFiles = 65536
	// MaxIncludeDepth is how deeply files may include one another.
	MaxIncludeDepth = 16
	// MaxDepth is how deeply sections may nest, inherited ones counted.
	MaxDepth = 32
	// MaxNodes is the number of values and sections, before and after references are resolved.
	MaxNodes = 2 << 20
	// MaxName is the length in bytes of a section name or key; VICI can carry no more.
	MaxName = 255
	// MaxValue is the length in bytes of one value.
	MaxValue = 1 << 20
	// MaxReferences is the number of references of one section.
	MaxReferences = 64
	// MaxReferenceDepth is how long a chain of references may be.
	MaxReferenceDepth = 64
	// MaxInherited is the number of sections that one section may inherit from, all levels counted.
	MaxInherited = 256
)
