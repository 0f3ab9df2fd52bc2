"""The engine: claims runs (`worker`), drives them by the loop's decisions (`drive`), does what they ask (`perform`)."""
